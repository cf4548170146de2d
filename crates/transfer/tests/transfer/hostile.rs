//! Archives that want to write where they must not, and damaged ones.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::symlink;

use test_case::test_case;
use zip::write::SimpleFileOptions;

use crate::support::{Project, Ran};

/// A project inside of a directory that has to stay as it is.
fn extract(archive: &[u8], prepare: impl FnOnce(&Project)) -> (Project, Project, Ran) {
    let around = Project::new();
    let project = Project::new();
    project.file("cache.zip", archive);
    prepare(&project);
    let ran = project.run(&["cache-extractor", "--file", "cache.zip"]);
    (around, project, ran)
}

fn zip_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Entries are files, or links when their content begins with `->`.
fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        // The library refuses such names, so they are put in by hand.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let content = match content.strip_prefix("->") {
            Some(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
                ""
            }
            None => content,
        };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    // As `tar --zstd` does.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(&builder.into_inner().unwrap()).unwrap();
    encoder.finish().unwrap()
}

#[test_case("../evil")]
#[test_case("a/../../evil"; "on the way")]
#[test_case("/tmp/drover-evil"; "absolute")]
fn names_that_lead_outside_are_refused(name: &str) {
    for archive in [zip_of(&[("good", "x"), (name, "evil")]), tar_of(&[("good", "x"), (name, "evil")])] {
        let (_, project, ran) = extract(&archive, |_| {});
        assert_eq!(ran.code, 1);
        assert!(ran.log.contains(&format!("holds `{name}`, which leads outside")), "{}", ran.log);
        assert!(!project.path().parent().unwrap().join("evil").exists());
        assert!(!std::path::Path::new("/tmp/drover-evil").exists());
    }
}

#[test]
fn nothing_is_written_through_a_link_of_the_archive() {
    let outside = Project::new();
    let link = format!("->{}", outside.path().display());
    let (_, project, ran) = extract(&tar_of(&[("door", &link), ("door/evil", "x")]), |_| {});
    // The file makes a directory of that name, which the link does not replace.
    assert_eq!(ran.code, 1, "{}", ran.log);
    assert!(!outside.has("evil"));
    assert_eq!(project.read("door/evil"), "x");
}

#[test]
fn nothing_is_written_through_a_link_that_was_there() {
    let outside = Project::new();
    outside.file("target", "old");
    for archive in [zip_of(&[("door/evil", "x")]), tar_of(&[("door/evil", "x")])] {
        let (_, _, ran) = extract(&archive, |project| {
            symlink(outside.path(), project.path().join("door")).unwrap();
        });
        assert_eq!(ran.code, 1);
        assert!(ran.log.contains("holds `door`, which leads outside"), "{}", ran.log);
        assert!(!outside.has("evil"));
    }
    // A link in the place of a file is replaced, not followed.
    for archive in [zip_of(&[("file", "new")]), tar_of(&[("file", "new")])] {
        let (_, project, ran) = extract(&archive, |project| {
            symlink(outside.path().join("target"), project.path().join("file")).unwrap();
        });
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert_eq!((project.read("file").as_str(), outside.read("target").as_str()), ("new", "old"));
    }
}

#[test]
fn a_link_within_the_project_may_be_gone_through() {
    let (_, project, ran) = extract(&zip_of(&[("door/file", "x")]), |project| {
        project.file("room/there", "");
        symlink("room", project.path().join("door")).unwrap();
    });
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(project.read("room/file"), "x");
}

#[test]
fn set_user_id_is_not_restored() {
    let project = Project::new();
    project.file("tool", "x");
    project.program("chmod", &["4755", "tool"]);
    assert_eq!(project.run(&["cache-archiver", "--file", "c.zip", "--path", "tool"]).code, 0);
    fs::remove_file(project.path().join("tool")).unwrap();
    assert_eq!(project.run(&["cache-extractor", "--file", "c.zip"]).code, 0);
    let listing = project.program("stat", &["-c", "%a", "tool"]);
    assert_eq!(listing.trim(), "755");
}

#[test]
fn damaged_archives_end_with_one_and_are_removed() {
    let text: String = (0..60_000).map(|number| format!("{number}\n")).collect();
    let zip = {
        let project = Project::new();
        project.file("f", &text);
        assert_eq!(project.run(&["cache-archiver", "--file", "c", "--path", "f"]).code, 0);
        fs::read(project.path().join("c")).unwrap()
    };
    let tar = tar_of(&[("f", &text)]);
    let mut flipped_zip = zip.clone();
    flipped_zip[zip.len() / 2] ^= 0x55;
    let mut flipped_tar = tar.clone();
    flipped_tar[tar.len() / 2] ^= 0x55;
    let mut gzip = vec![0x1f, 0x8b, 8, 0];
    gzip.extend([0; 30]);
    let cases: [(&str, Vec<u8>); 8] = [
        ("cut zip", zip[..zip.len() / 2].to_vec()),
        ("flipped zip", flipped_zip),
        ("cut tar", tar[..tar.len() / 2].to_vec()),
        ("flipped tar", flipped_tar),
        ("gzip without a name", gzip),
        ("text", b"<html>not found</html>".to_vec()),
        ("empty", Vec::new()),
        ("head of a zip", b"PK\x03\x04".to_vec()),
    ];
    for (what, archive) in cases {
        let (_, project, ran) = extract(&archive, |_| {});
        assert_eq!(ran.code, 1, "{what}: {}", ran.log);
        assert!(ran.log.contains("FATAL: failed to extract the cache: the archive "), "{what}: {}", ran.log);
        assert!(
            ran.log.contains("WARNING: cache.zip is damaged and has been removed"),
            "{what}: {}",
            ran.log
        );
        assert!(!project.has("cache.zip"));
    }
}
