//! Archives of every dialect, and archives that lie.

use std::io::{ErrorKind, Read};

use proptest::prelude::*;

use super::{Entry, Kind, TarReader};
use crate::image::testing::{Member, checksum, tarball};

fn read(bytes: &[u8]) -> std::io::Result<Vec<(Entry, Vec<u8>)>> {
    let mut tar = TarReader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let mut content = Vec::new();
        tar.read_to_end(&mut content)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn names(bytes: &[u8]) -> Vec<String> {
    let name = |(entry, _): (Entry, _)| String::from_utf8(entry.name).unwrap();
    read(bytes).unwrap().into_iter().map(name).collect()
}

#[test]
fn an_archive_of_another_writer_reads_back() {
    let mut builder = tar::Builder::new(Vec::new());
    let long = format!("{}/file", "directory".repeat(20));
    for name in ["short", &long] {
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o4755);
        header.set_uid(3_000_000_000);
        header.set_gid(7);
        header.set_mtime(1_234_567_890);
        builder.append_data(&mut header, name, &b"hello"[..]).unwrap();
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    header.set_path(format!("{}/{}", "p".repeat(120), "n".repeat(90))).unwrap();
    header.set_link_name("to").unwrap();
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let entries = read(&builder.into_inner().unwrap()).unwrap();

    let (first, content) = &entries[0];
    assert_eq!((first.name.as_slice(), content.as_slice()), (&b"short"[..], &b"hello"[..]));
    assert_eq!((first.kind, first.mode), (Kind::File, 0o4755));
    assert_eq!((first.uid, first.gid, first.mtime), (3_000_000_000, 7, (1_234_567_890, 0)));
    assert_eq!(entries[1].0.name, long.as_bytes());
    let (link, _) = &entries[2];
    assert_eq!((link.kind, link.link.as_slice()), (Kind::Symlink, &b"to"[..]));
    assert_eq!(link.name, [&[b'p'; 120][..], b"/", &[b'n'; 90]].concat());
}

#[test]
fn pax_records_win_over_headers() {
    let member = Member::file("short", "12345")
        .pax("path", "a/much/better/name")
        .pax("uid", "4000000000")
        .pax("mtime", "1500000000.25")
        .pax("SCHILY.xattr.user.key", b"v\n\0x");
    let (entry, content) = read(&tarball(&[member])).unwrap().remove(0);
    assert_eq!(entry.name, b"a/much/better/name");
    assert_eq!((entry.uid, entry.mtime), (4_000_000_000, (1_500_000_000, 250_000_000)));
    assert_eq!(entry.xattrs, [(b"user.key".to_vec(), b"v\n\0x".to_vec())]);
    assert_eq!(content, b"12345");
}

#[test]
fn records_of_one_entry_do_not_reach_the_next() {
    let members = [Member::file("x", "").pax("path", "first"), Member::file("second", "")];
    assert_eq!(names(&tarball(&members)), ["first", "second"]);
    let global = Member { content: b"13 path=nope\n".to_vec(), ..Member::dir("g").kind(b'g') };
    assert_eq!(names(&tarball(&[global, Member::dir("kept")])), ["kept"]);
}

#[test]
fn content_that_was_not_read_is_skipped() {
    let bytes = tarball(&[Member::file("a", [1; 1500]), Member::file("b", "")]);
    let mut tar = TarReader::new(&bytes[..]);
    assert_eq!(tar.next_entry().unwrap().unwrap().size, 1500);
    let mut some = [0; 600];
    tar.read_exact(&mut some).unwrap();
    assert_eq!(tar.next_entry().unwrap().unwrap().name, b"b");
    assert!(tar.next_entry().unwrap().is_none());
}

#[test]
fn the_end_may_be_marked_or_not() {
    let whole = tarball(&[Member::file("a", "content")]);
    for length in [1024, 1536, 2048] {
        assert_eq!(names(&whole[..length]), ["a"]);
    }
    for length in [1, 511, 700, 1023, 1300] {
        assert_eq!(read(&whole[..length]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
    assert!(read(b"").unwrap().is_empty());
}

#[test]
fn both_kinds_of_sparse_files_know_their_runs() {
    let mut old = Member { content: b"headtail".to_vec(), ..Member::file("old", "") }.kind(b'S');
    let mut header = old.header();
    header[257..265].copy_from_slice(b"ustar  \0");
    let mut put = |at: usize, value: u64| {
        header[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    };
    for (at, value) in [(386, 0), (398, 4), (410, 8192), (422, 4), (483, 10_000)] {
        put(at, value);
    }
    checksum(&mut header);
    old.content.resize(512, 0);
    let (entry, content) = read(&[&header[..], &old.content, &[0; 1024]].concat()).unwrap().remove(0);
    assert_eq!((entry.size, entry.runs), (10_000, Some(vec![(0, 4), (8192, 4)])));
    assert_eq!(content, b"headtail");

    let mut content = b"2\n0\n4\n8192\n4\n".to_vec();
    content.resize(512, 0);
    content.extend(b"headtail");
    let new = Member::file("GNUSparseFile.1/new", content)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "new")
        .pax("GNU.sparse.realsize", "10000");
    let (entry, content) = read(&tarball(&[new])).unwrap().remove(0);
    assert_eq!((entry.name.as_slice(), entry.size), (&b"new"[..], 10_000));
    assert_eq!(entry.runs, Some(vec![(0, 4), (8192, 4)]));
    assert_eq!(content, b"headtail");

    let overlapping = Member::file("bad", "headtail").pax("GNU.sparse.map", "0,6,4,2").pax("GNU.sparse.size", "10000");
    assert!(read(&tarball(&[overlapping])).is_err());
}

#[test]
fn damaged_and_inflated_headers_are_refused() {
    let whole = tarball(&[Member::file("a", "content")]);
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    assert!(read(&damaged).unwrap_err().to_string().contains("checksum"));

    for kind in [b'x', b'L', b'K'] {
        let mut huge = Member::dir("huge").kind(kind).header();
        huge[124..136].copy_from_slice(b"77777777777\0");
        checksum(&mut huge);
        let error = read(&[&huge[..], &whole].concat()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }
    let long = Member::file("x", "").pax("path", vec![b'a'; 5000]);
    assert!(read(&tarball(&[long])).unwrap_err().to_string().contains("4095"));
    assert!(read(&tarball(&[Member::dir("m").kind(b'M')])).is_err());
}

proptest! {
    /// Whatever the bytes, reading ends and neither panics nor allocates by their leave.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        drop(read(&bytes));
    }

    /// The same for archives that are right but for a few bytes, checksums repaired.
    #[test]
    fn any_header_is_survived(
        flips in proptest::collection::vec((0usize..512, any::<u8>()), 0..8),
        pax in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut header = Member::file("dir/file", "some content").pax("path", "other").bytes();
        for (at, byte) in flips {
            header[1024 + at] = byte;
        }
        let mut block: [u8; 512] = header[1024..1536].try_into().unwrap();
        checksum(&mut block);
        header[1024..1536].copy_from_slice(&block);
        header[512..512 + pax.len()].copy_from_slice(&pax);
        header.resize(header.len() + 1024, 0);
        drop(read(&header));
    }

    /// What was written is read.
    #[test]
    fn archives_round_trip(
        members in proptest::collection::vec(
            ("[a-z]{1,8}(/[a-z]{1,8}){0,3}", proptest::collection::vec(any::<u8>(), 0..1200),
             0u64..4_000_000_000, 0u32..0o7777),
            0..8,
        )
    ) {
        let written: Vec<_> = members
            .iter()
            .map(|(name, content, uid, mode)| {
                Member::file(name, content).owner(*uid, 5).mode(*mode)
            })
            .collect();
        let read = read(&tarball(&written)).unwrap();
        prop_assert_eq!(read.len(), members.len());
        for ((entry, content), (name, bytes, uid, mode)) in read.iter().zip(&members) {
            prop_assert_eq!((&entry.name[..], content), (name.as_bytes(), bytes));
            prop_assert_eq!((entry.uid, entry.mode), (*uid, *mode));
        }
    }
}
