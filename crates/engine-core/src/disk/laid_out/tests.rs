//! Layouts of every format, looked up by small readers of each that share nothing with the writers.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

pub(super) fn extent(offset: u64, length: u64) -> Extent {
    Extent { offset, length }
}

pub(super) fn disk(size: u64) -> Disk {
    Disk { size, name: "disk".into(), identity: Identity::of(Path::new("/disk"), 5, 7) }
}

/// All that comes before the data.
pub(super) fn head(layout: &dyn Layout) -> Vec<u8> {
    let mut bytes = Vec::new();
    hand_over(layout, &mut |at, page| {
        assert_eq!((at, page.len() as u64), (bytes.len() as u64, PAGE_BYTES));
        bytes.extend_from_slice(page);
        Ok(())
    })
    .unwrap();
    assert_eq!(bytes.len() as u64, layout.clusters().data_at());
    bytes
}

/// A beginning of a file, as who reads it sees it.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn bytes<const COUNT: usize>(&self, at: u64) -> [u8; COUNT] {
        self.0[at as usize..at as usize + COUNT].try_into().unwrap()
    }

    fn be64(&self, at: u64) -> u64 {
        u64::from_be_bytes(self.bytes(at))
    }

    fn le64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn le32(&self, at: u64) -> u64 {
        u64::from(u32::from_le_bytes(self.bytes(at)))
    }

    /// Finds a byte of the disk, and tells where in the file it is.
    fn looked_up(&self, format: Format, offset: u64) -> Option<u64> {
        match format {
            Format::Qcow2 => self.in_qcow2(offset),
            Format::Vmdk => self.in_vmdk(offset),
            Format::Vhdx => self.in_vhdx(offset),
            Format::Vdi => self.in_vdi(offset),
        }
    }

    fn in_qcow2(&self, offset: u64) -> Option<u64> {
        let own = 1 << 63;
        let table = self.be64(self.be64(40) + (offset >> 29) * 8) & !own;
        let entry = (table > 0).then(|| self.be64(table + (offset >> 16) % 8192 * 8));
        entry.filter(|entry| *entry > 0).map(|entry| (entry & !own) + offset % (1 << 16))
    }

    fn in_vmdk(&self, offset: u64) -> Option<u64> {
        let (grain, in_table) = (self.le64(20) * 512, self.le32(44));
        let mut found = [48, 56].map(|directory| {
            let directory = self.le64(directory) * 512;
            let table = self.le32(directory + offset / grain / in_table * 4) * 512;
            self.le32(table + offset / grain % in_table * 4) * 512
        });
        assert_eq!(found[0], found[1]);
        found[0] += offset % grain;
        Some(found[0]).filter(|_| found[1] > 0)
    }

    fn in_vhdx(&self, offset: u64) -> Option<u64> {
        let regions = 192 << 10;
        let (bat, metadata) = (self.le64(regions + 32), self.le64(regions + 64));
        let block = self.le32(metadata + (64 << 10));
        let chunk = (1 << 32) / block;
        let number = offset / block;
        let entry = self.le64(bat + (number + number / chunk) * 8);
        assert!(matches!(entry & 7, 2 | 6));
        assert_eq!(entry & 0xf_fff8, 0);
        (entry & 7 == 6).then(|| (entry & !7) + offset % block)
    }

    fn in_vdi(&self, offset: u64) -> Option<u64> {
        let (map, data, block) = (self.le32(340), self.le32(344), self.le32(376));
        let entry = self.le32(map + offset / block * 4);
        (entry < 0xffff_fffe).then(|| data + entry * block + offset % block)
    }
}

/// Everything that can be said of a layout, for these bytes of the disk.
fn assert_found(format: Format, size: u64, data: &[Extent]) {
    let layout = format.lay_out(&disk(size), data).unwrap();
    let (bytes, clusters) = (head(&*layout), layout.clusters());
    let reader = Reader(&bytes);
    let mut places = Vec::new();
    for one in data.iter().filter(|one| one.length > 0) {
        let mut at = one.offset;
        while at < one.offset + one.length {
            let (place, follow) = clusters.place(at);
            let last = (at + follow).min(one.offset + one.length) - 1;
            assert_eq!(reader.looked_up(format, at), place, "{format:?} {at}");
            assert_eq!(reader.looked_up(format, last), place.map(|from| from + last - at));
            assert!(place.unwrap() >= clusters.data_at());
            assert!(place.unwrap() + follow <= clusters.file_bytes());
            places.push(place.unwrap());
            at += follow;
        }
        // Around it, and half way to wherever.
        let end = one.offset + one.length;
        for near in [one.offset.saturating_sub(1), end, end + (size - end) / 2] {
            if near < size {
                assert_eq!(reader.looked_up(format, near), clusters.place(near).0, "{near}");
            }
        }
    }
    assert!(places.is_sorted());
    let held: u64 = clusters.held_from(0).iter().map(|one| one.length).sum();
    assert!(clusters.file_bytes() >= clusters.data_at() + held);
    for half in [size / 2, size.saturating_sub(1)] {
        if half < size {
            assert_eq!(reader.looked_up(format, half), clusters.place(half).0);
        }
    }
}

#[test]
fn a_reader_of_the_format_finds_what_the_writer_places() {
    let (size, cluster) = (3 << 30, 64 << 10);
    let data = [
        extent(4096, 100),
        extent(cluster, 1),
        extent(5 * cluster - 1, 2),
        extent(1 << 30, 3 * cluster),
        extent((5 << 29) - 5, 7),
        extent(size - 512, 512),
    ];
    for format in Format::ALL {
        assert_found(format, size, &data);
        assert_found(format, size, &[]);
        assert_found(format, 512, &[extent(0, 512)]);
        assert_found(format, 70_144, &[extent(0, 70_144)]);
        // More than one chunk of blocks, tables, and clusters of counts.
        assert_found(format, 9 << 30, &[extent(0, 9 << 30)]);
        assert_found(format, 101 << 30, &[extent(5 << 30, 64 << 30), extent(100 << 30, 5)]);
    }
}

#[test]
fn a_disk_that_a_format_can_t_hold_is_refused() {
    let refused = |format: Format, size, data: &[Extent]| {
        let told = format.lay_out(&disk(size), data);
        assert!(matches!(told, Err(Error::Invalid(_))), "{format:?} {size}");
    };
    for format in Format::ALL {
        refused(format, u64::MAX / 512 * 512, &[]);
        refused(format, u64::MAX / 2 + 1, &[]);
        refused(format, 512, &[extent(0, 513)]);
        assert_eq!(Format::named(format.name()), Some(format));
    }
    refused(Format::Qcow2, (2 << 50) + 512, &[]);
    refused(Format::Vhdx, (64 << 40) + 512, &[]);
    refused(Format::Vdi, 513 << 40, &[]);
    refused(Format::Vmdk, (1 << 50) + 512, &[]);
    refused(Format::Vmdk, 0, &[]);
    refused(Format::Vhdx, 0, &[]);
    assert_eq!(Format::named("vpc"), None);
}

#[test]
fn the_same_disk_gives_the_same_bytes_and_another_file_others() {
    for format in Format::ALL {
        let of = |disk: &Disk| head(&*format.lay_out(disk, &[extent(0, 512)]).unwrap());
        let one = of(&disk(1 << 20));
        assert!(one == of(&disk(1 << 20)));
        let identity = Identity::of(Path::new("/other"), 5, 7);
        let other = of(&Disk { identity, ..disk(1 << 20) });
        assert_eq!(one == other, format == Format::Qcow2, "{format:?}");
    }
}

#[test]
fn what_is_written_is_read_again_and_gone_on_with_in_that_file_alone() {
    let (size, data) = (40 << 20, [extent(100, 3 << 20), extent(33 << 20, 512)]);
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|at| (at % 251) as u8 + 1).collect();
    let patience: Patience<'_> = &|| Ok(());
    for format in Format::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        std::fs::write(&path, b"something else").unwrap();
        let sink = LaidOutSink::open(&path, format, size).unwrap();
        let part = Part { offset: 100, bytes: &bytes };
        assert!(matches!(sink.write(&[part], patience), Err(Error::Invalid(_))));
        sink.expect(&data, 0).unwrap();
        sink.write(&[part], patience).unwrap();
        sink.flush(patience).unwrap();
        let hole = Part { offset: 25 << 20, bytes: &[1] };
        assert!(matches!(sink.write(&[hole], patience), Err(Error::Invalid(_))));

        let again = LaidOutSink::open(&path, format, size).unwrap();
        again.expect(&data, 1 << 20).unwrap();
        assert_eq!(again.stale()[0].offset, 1 << 20);
        again.zero(2 << 20, 30 << 20, patience).unwrap();
        let mut found = vec![9; 4 << 20];
        again.read(&mut [Piece { offset: 0, bytes: &mut found }], patience).unwrap();
        let mut expected = vec![0; 4 << 20];
        expected[100..2 << 20].copy_from_slice(&bytes[..(2 << 20) - 100]);
        assert!(found == expected, "{format:?}");

        let other = LaidOutSink::open(&path, format, size).unwrap();
        assert!(matches!(other.expect(&data[..1], 1 << 20), Err(Error::Integrity { .. })));
        let copy = directory.path().join("copy");
        std::fs::copy(&path, &copy).unwrap();
        let copied = LaidOutSink::open(&copy, format, size).unwrap().expect(&data, 1 << 20);
        assert_eq!(copied.is_ok(), format == Format::Qcow2, "{format:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_data_is_found_in_every_format(
        parts in proptest::collection::vec((0_u64..40 << 20, 0_u64..3 << 20), 0..40),
        rest in 1_u64..1 << 20,
    ) {
        let mut data = Vec::new();
        let mut at = 0;
        for (gap, length) in parts {
            data.push(extent(at + gap, length));
            at += gap + length;
        }
        let size = (at + rest).div_ceil(SECTOR) * SECTOR;
        for format in Format::ALL {
            assert_found(format, size, &data);
        }
    }
}
