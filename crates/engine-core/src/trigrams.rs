//! The trigrams of many names, as one segment of an index by SQLite's FTS5.
//!
//! FTS5 looks each trigram of each name up in a table of growing lists, and waits for memory each
//! time. Here they are noted in the order in which they come and sorted once. What is made is what
//! FTS5 itself writes for `detail=none` and the tokenizer `trigram case_sensitive 1`, so that it
//! reads, merges and deletes it as its own. The format is that of version 4, which FTS5 has had from
//! its beginning; see "Details" at the top of its `fts5_index.c`.
//!
//! Must not know a database: who calls it stores the blocks. Invariant: ids come in rising order.

use std::collections::HashMap;

/// From here on a page is full, as FTS5 has it by default.
const PAGE_BYTES: usize = 4050;

/// So many pages without a term of their own are worth an index of their first ids.
const PAGES_WORTH_AN_INDEX: u32 = 4;

/// All terms of the main index begin with it.
const MAIN_INDEX: u8 = b'0';

/// So many notes are one segment: 128 MiB, and half of that again while it is made.
const NOTES_OF_A_SEGMENT: usize = 1 << 24;

const ASCII: u32 = 128;

/// A block of the table `…_data`: its id and its bytes.
pub type Block = (i64, Vec<u8>);

/// A row of the table `…_idx`: a term, and a page with a flag in its lowest bit.
pub type Term = (Vec<u8>, i64);

/// What is stored of one segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub blocks: Vec<Block>,
    pub terms: Vec<Term>,
    /// Pages, which are numbered from 1.
    pub pages: u32,
}

/// Trigrams of names, until they are made a segment.
pub struct Trigrams {
    /// Numbers of trigrams of ASCII, plus one.
    ascii: Vec<u32>,
    others: HashMap<[char; 3], u32>,
    known: Vec<[char; 3]>,
    /// For each trigram the place of the last name that has it, plus one.
    last: Vec<u32>,
    ids: Vec<i64>,
    /// Trigrams, and places of names among `ids`.
    notes: Vec<(u32, u32)>,
    tokens: u64,
}

impl Default for Trigrams {
    fn default() -> Self {
        Trigrams {
            ascii: vec![0; (ASCII * ASCII * ASCII) as usize],
            others: HashMap::new(),
            known: Vec::new(),
            last: Vec::new(),
            ids: Vec::new(),
            notes: Vec::new(),
            tokens: 0,
        }
    }
}

impl Trigrams {
    /// Note the trigrams of a text; its id is higher than those before it.
    pub fn add(&mut self, id: i64, text: &str) {
        debug_assert!(self.ids.last().is_none_or(|last| *last < id));
        self.ids.push(id);
        let place = self.ids.len() as u32;
        let mut window = ['\0'; 3];
        // FTS5 reads to the first NUL
        for (at, next) in text.chars().take_while(|one| *one != '\0').enumerate() {
            window = [window[1], window[2], next];
            if at >= 2 {
                self.tokens += 1;
                let number = self.number(window);
                let last = &mut self.last[number as usize];
                if *last != place {
                    *last = place;
                    self.notes.push((number, place - 1));
                }
            }
        }
    }

    /// Whether there is enough for a segment.
    pub fn is_full(&self) -> bool {
        self.notes.len() >= NOTES_OF_A_SEGMENT
    }

    /// How many trigrams there were in all texts, repeated ones and those of segments included.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Make a segment of what was noted since the last one.
    pub fn segment(&mut self, number: u16) -> Segment {
        let notes = std::mem::take(&mut self.notes);
        let ids = std::mem::take(&mut self.ids);
        self.last.fill(0);
        let mut ends = vec![0_usize; self.known.len()];
        for (trigram, _) in &notes {
            ends[*trigram as usize] += 1;
        }
        let mut end = 0;
        for one in &mut ends {
            end += std::mem::replace(one, end);
        }
        // each list fills up in the order of its ids, until where it begins has become where it ends
        let mut lists = vec![0_u32; notes.len()];
        for (trigram, place) in notes {
            let at = &mut ends[trigram as usize];
            lists[*at] = place;
            *at += 1;
        }
        let mut order: Vec<u32> = (0..self.known.len() as u32).collect();
        // characters sort as their UTF-8 does
        order.sort_unstable_by_key(|one| self.known[*one as usize]);
        let mut writer = Writer::new(number);
        let mut term = Vec::with_capacity(1 + 3 * 4);
        for one in order {
            let one = one as usize;
            let begin = if one == 0 { 0 } else { ends[one - 1] };
            if begin < ends[one] {
                term.clear();
                term.push(MAIN_INDEX);
                for character in self.known[one] {
                    term.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                writer.term(&term);
                for place in &lists[begin..ends[one]] {
                    writer.id(ids[*place as usize]);
                }
            }
        }
        writer.finish()
    }

    fn number(&mut self, trigram: [char; 3]) -> u32 {
        let [a, b, c] = trigram.map(u32::from);
        let next = self.known.len() as u32;
        let number = if a | b | c < ASCII {
            let slot = &mut self.ascii[((a * ASCII + b) * ASCII + c) as usize];
            if *slot == 0 {
                *slot = next + 1;
            }
            *slot - 1
        } else {
            *self.others.entry(trigram).or_insert(next)
        };
        if number == next {
            self.known.push(trigram);
            self.last.push(0);
        }
        number
    }
}

/// Fills the pages of a segment.
struct Writer {
    segment: Segment,
    number: u16,
    page: Vec<u8>,
    /// Where the terms of the page are, and where the last one is.
    footer: Vec<u8>,
    last_term_at: usize,
    /// The last term, on whatever page.
    term: Vec<u8>,
    has_term: bool,
    has_id: bool,
    begins_list: bool,
    last_id: i64,
    /// What leads to the last page that has a term, and that page.
    leads: Vec<u8>,
    led_to: u32,
    /// Pages without a term since, and the first id of each.
    without_term: u32,
    first_ids: Vec<u8>,
    last_first_id: i64,
}

impl Writer {
    fn new(number: u16) -> Self {
        Writer {
            segment: Segment::default(),
            number,
            page: vec![0; 4],
            footer: Vec::new(),
            last_term_at: 0,
            term: Vec::new(),
            has_term: false,
            has_id: false,
            begins_list: false,
            last_id: 0,
            leads: Vec::new(),
            led_to: 1,
            without_term: 0,
            first_ids: Vec::new(),
            last_first_id: 0,
        }
    }

    fn page_number(&self) -> u32 {
        self.segment.pages + 1
    }

    fn term(&mut self, term: &[u8]) {
        if self.page.len() + self.footer.len() + term.len() + 2 >= PAGE_BYTES && self.page.len() > 4
        {
            self.end_page();
        }
        put_varint(&mut self.footer, (self.page.len() - self.last_term_at) as u64);
        self.last_term_at = self.page.len();
        let alike = self.term.iter().zip(term).take_while(|(a, b)| a == b).count();
        let mut kept = 0;
        if self.has_term {
            kept = alike;
            put_varint(&mut self.page, kept as u64);
        } else if self.page_number() != 1 {
            // as much of it as parts it from the term before
            self.end_leads();
            let shortest = if self.term.is_empty() { term.len() } else { alike + 1 };
            self.leads = term[..shortest].to_vec();
            self.led_to = self.page_number();
        }
        put_varint(&mut self.page, (term.len() - kept) as u64);
        self.page.extend_from_slice(&term[kept..]);
        self.term.clear();
        self.term.extend_from_slice(term);
        self.has_term = true;
        self.has_id = true;
        self.begins_list = true;
    }

    fn id(&mut self, id: i64) {
        if self.page.len() + self.footer.len() >= PAGE_BYTES {
            self.end_page();
        }
        if !self.has_id {
            let at = self.page.len() as u16;
            self.page[..2].copy_from_slice(&at.to_be_bytes());
            self.note_first_id(id);
        }
        let whole = self.begins_list || !self.has_id;
        put_varint(&mut self.page, if whole { id } else { id - self.last_id } as u64);
        self.last_id = id;
        self.begins_list = false;
        self.has_id = true;
    }

    fn note_first_id(&mut self, id: i64) {
        if self.first_ids.is_empty() {
            self.first_ids.push(0);
            put_varint(&mut self.first_ids, u64::from(self.segment.pages + 1));
            self.last_first_id = 0;
        }
        put_varint(&mut self.first_ids, (id - self.last_first_id) as u64);
        self.last_first_id = id;
    }

    fn end_page(&mut self) {
        let end = self.page.len() as u16;
        self.page[2..4].copy_from_slice(&end.to_be_bytes());
        if self.has_term {
            self.page.append(&mut self.footer);
        } else {
            self.without_term += 1;
        }
        self.segment.pages += 1;
        let id = block_id(self.number, false, self.segment.pages);
        let full = std::mem::replace(&mut self.page, vec![0; 4]);
        self.segment.blocks.push((id, full));
        self.last_term_at = 0;
        self.has_term = false;
        self.has_id = false;
    }

    fn end_leads(&mut self) {
        let first_ids = std::mem::take(&mut self.first_ids);
        // A longer one would have to be a tree. It only saves time, and so may be missing.
        let indexed =
            self.without_term >= PAGES_WORTH_AN_INDEX && (1..PAGE_BYTES).contains(&first_ids.len());
        if indexed {
            self.segment.blocks.push((block_id(self.number, true, self.led_to), first_ids));
        }
        self.without_term = 0;
        let page = i64::from(self.led_to) << 1 | i64::from(indexed);
        self.segment.terms.push((std::mem::take(&mut self.leads), page));
    }

    fn finish(mut self) -> Segment {
        if self.page.len() > 4 {
            self.end_page();
        }
        if self.segment.pages > 0 {
            self.end_leads();
        }
        self.segment
    }
}

fn block_id(segment: u16, is_index: bool, page: u32) -> i64 {
    i64::from(segment) << 37 | i64::from(is_index) << 36 | i64::from(page)
}

/// SQLite's varint: seven bits a byte, the upper ones first; a ninth byte has eight.
fn put_varint(to: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 9];
    let mut at = 9;
    let mut left = value;
    if value >> 56 != 0 {
        at = 8;
        bytes[8] = value as u8;
        left = value >> 8;
    }
    let last = at;
    loop {
        at -= 1;
        let more = if at + 1 == last && last == 9 { 0 } else { 0x80 };
        bytes[at] = (left & 0x7f) as u8 | more;
        left >>= 7;
        // a nine-byte one has all of its nine bytes
        if left == 0 && (last == 9 || at == 0) {
            break;
        }
    }
    to.extend_from_slice(&bytes[at..]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn varints_are_those_of_sqlite() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![127]),
            (128, vec![0x81, 0]),
            (16_383, vec![0xff, 0x7f]),
            (16_384, vec![0x81, 0x80, 0]),
            ((1 << 56) - 1, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            (1 << 56, vec![0x80, 0xc0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]),
            (u64::MAX, vec![0xff; 9]),
        ] {
            let mut found = Vec::new();
            put_varint(&mut found, value);
            assert_eq!(found, bytes, "{value}");
        }
    }

    #[test]
    fn a_small_segment_is_one_page() {
        let mut trigrams = Trigrams::default();
        trigrams.add(5, "abab");
        trigrams.add(7, "xaba");
        trigrams.add(300, "aé€");
        trigrams.add(301, "ab");
        assert_eq!(trigrams.tokens(), 5);
        let segment = trigrams.segment(3);
        let mut page = vec![0, 0, 0, 0];
        page.extend_from_slice(b"\x040aba\x05\x02"); // 5, and 2 more
        // shares "0a" with the one before
        page.extend_from_slice("\x02\x05é€".as_bytes());
        page.extend_from_slice(b"\x82\x2c"); // 300
        // in the order of their bytes "0bab" is before "0xab", and "0a…" before both
        page.extend_from_slice(b"\x01\x03bab\x05\x01\x03xab\x07");
        page[3] = page.len() as u8;
        page.extend_from_slice(b"\x04\x07\x09\x06");
        assert_eq!(segment.blocks, [((3 << 37) + 1, page)]);
        assert_eq!(segment.terms, [(vec![], 2)]);
        assert_eq!(segment.pages, 1);
    }

    #[test]
    fn nothing_is_no_page() {
        assert_eq!(Trigrams::default().segment(1), Segment::default());
    }

    #[test]
    fn a_name_is_once_in_a_list_and_segments_do_not_share_names() {
        let mut trigrams = Trigrams::default();
        trigrams.add(1, "aaaaaa");
        let first = trigrams.segment(1);
        assert_eq!(first.blocks[0].1, b"\0\0\0\x0a\x040aaa\x01\x04");
        trigrams.add(2, "aaaa");
        let second = trigrams.segment(2);
        assert_eq!(second.blocks[0].1, b"\0\0\0\x0a\x040aaa\x02\x04");
        assert_eq!(trigrams.tokens(), 6);
    }

    #[test]
    fn a_long_list_goes_on_over_pages_that_are_indexed() {
        let mut trigrams = Trigrams::default();
        for id in 1..=30_000 {
            trigrams.add(id, "aaa");
        }
        trigrams.add(30_001, "bbb");
        let segment = trigrams.segment(1);
        assert_eq!(segment.pages, 8);
        let index = &segment.blocks.iter().find(|one| one.0 >> 36 & 1 == 1).unwrap();
        assert_eq!(index.0, (1 << 37) + (1 << 36) + 1);
        // it is a root; the first page that goes on is the second
        assert_eq!(index.1[..2], [0, 2]);
        assert_eq!(segment.terms, [(vec![], 3), (b"0b".to_vec(), 16)]);
    }
}
