#![allow(clippy::unwrap_used)]
use super::*;

fn write(disk: &SimDisk, path: &str, data: &[u8]) -> SimFile {
    let mut file = disk.create(path).unwrap();
    disk.write(&mut file, data).unwrap();
    file
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let (file, size) = disk.open(path).ok()?;
    let mut data = vec![0; size as usize];
    disk.read_at(&file, &mut data, 0).unwrap();
    Some(data)
}

#[test]
fn a_power_cut_takes_bytes_that_were_not_synced() {
    let disk = SimDisk::new();
    let mut file = write(&disk, "a", b"synced");
    disk.sync_file(&mut file).unwrap();
    disk.write(&mut file, b" and not").unwrap();
    write(&disk, "b", b"never synced");
    disk.sync_dir("").unwrap();
    assert_eq!(read(&disk, "a").unwrap(), b"synced and not");
    disk.crash(Loss::AllUnsynced);
    assert_eq!(read(&disk, "a").unwrap(), b"synced");
    assert_eq!(read(&disk, "b").unwrap(), b"");
    assert!(disk.write(&mut file, b"late").is_err(), "a file stayed open over a power cut");
}

#[test]
fn a_power_cut_takes_names_that_were_not_synced_and_undoes_renames() {
    let disk = SimDisk::new();
    disk.sync_file(&mut write(&disk, "old", b"1")).unwrap();
    disk.sync_dir("").unwrap();
    disk.sync_file(&mut write(&disk, "new", b"2")).unwrap();
    disk.rename("old", "moved").unwrap();
    let (kept, lost) = (disk.copy(), disk);
    lost.crash(Loss::AllUnsynced);
    assert_eq!(read(&lost, "old").unwrap(), b"1");
    assert_eq!((read(&lost, "new"), read(&lost, "moved")), (None, None));
    kept.crash(Loss::UnsyncedBytes);
    assert_eq!(read(&kept, "moved").unwrap(), b"1");
    assert_eq!(read(&kept, "new").unwrap(), b"2");
    assert_eq!(read(&kept, "old"), None);
}

#[test]
fn a_folder_that_was_not_synced_takes_its_files_with_it() {
    let disk = SimDisk::new();
    disk.mkdir("d").unwrap();
    disk.sync_file(&mut write(&disk, "d/a", b"1")).unwrap();
    disk.sync_dir("d").unwrap();
    disk.crash(Loss::AllUnsynced);
    assert_eq!(disk.stat("d").unwrap(), None);
}

#[test]
fn an_unlink_that_was_not_synced_is_undone() {
    let disk = SimDisk::new();
    disk.sync_file(&mut write(&disk, "a", b"1")).unwrap();
    disk.sync_dir("").unwrap();
    disk.unlink("a").unwrap();
    disk.crash(Loss::AllUnsynced);
    assert_eq!(read(&disk, "a").unwrap(), b"1");
}

#[test]
fn a_seed_chooses_what_is_lost_and_never_what_was_synced() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = SimDisk::new();
        disk.sync_file(&mut write(&disk, "safe", b"safe")).unwrap();
        disk.sync_dir("").unwrap();
        write(&disk, "a", &[1; 2000]);
        disk.unlink("safe").unwrap();
        disk.sync_dir("").unwrap();
        disk.sync_file(&mut write(&disk, "b", b"b")).unwrap();
        disk.crash(Loss::Some(seed));
        assert_eq!(read(&disk, "safe"), None);
        assert!(read(&disk, "b").is_none_or(|data| data == b"b"));
        seen.insert((read(&disk, "a"), read(&disk, "b")));
    }
    assert!(seen.len() > 16, "only {} outcomes", seen.len());
}

#[test]
fn after_the_power_goes_off_nothing_works_until_the_crash() {
    let disk = SimDisk::new();
    disk.power_off_after(1);
    disk.mkdir("d").unwrap();
    assert!(disk.is_off());
    assert!(disk.mkdir("e").is_err() && disk.stat("d").is_err() && disk.open("d").is_err());
    assert_eq!(disk.operations(), ["make the folder d"]);
    disk.crash(Loss::Nothing);
    assert_eq!(disk.stat("d").unwrap(), Some(Found::Folder));
    assert_eq!(disk.stat("e").unwrap(), None);
}

#[test]
fn a_full_disk_takes_nothing_new_but_lets_go() {
    let disk = SimDisk::new();
    let mut file = write(&disk, "a", b"1");
    disk.full_after(Some(0));
    let full = |result: io::Result<()>| result.unwrap_err().kind() == ErrorKind::StorageFull;
    assert!(full(disk.write(&mut file, b"2")));
    assert!(full(disk.mkdir("d")));
    assert!(full(disk.create("b").map(drop)));
    disk.unlink("a").unwrap();
    disk.full_after(None);
    disk.mkdir("d").unwrap();
}
