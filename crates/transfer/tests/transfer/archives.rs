//! Archives that other programs make and read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use test_case::test_case;

use crate::support::{Project, noise};

fn archive(project: &Project, format: &str, level: &str) {
    let ran = project.run(&[
        "cache-archiver",
        "--file",
        "cache/k/cache.zip",
        "--path",
        "odd",
        "--compression-format",
        format,
        "--compression-level",
        level,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert!(ran.log.starts_with("odd: found 18 matching artifact files and directories\n"), "{}", ran.log);
}

/// Takes the archive of one project into a new one.
fn moved(from: &Project) -> Project {
    let to = Project::new();
    to.file("cache/k/cache.zip", fs::read(from.path().join("cache/k/cache.zip")).unwrap());
    to
}

#[test_case("zip", "default")]
#[test_case("zip", "fastest"; "stored")]
#[test_case("zip", "slowest")]
#[test_case("zipzstd", "default"; "zip with zstd")]
#[test_case("tarzstd", "default"; "tar in zstd")]
#[test_case("tarzstd", "fastest"; "tar in fast zstd")]
fn everything_comes_back_as_it_was(format: &str, level: &str) {
    let project = Project::new().with_oddities();
    archive(&project, format, level);
    let other = moved(&project);
    let ran = other.run(&["cache-extractor", "--file", "cache/k/cache.zip"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(other.seen("odd"), project.seen("odd"));
    // Once more over what is there.
    let ran = other.run(&["cache-extractor", "--file", "cache/k/cache.zip"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(other.seen("odd"), project.seen("odd"));
}

#[test_case("default")]
#[test_case("fastest")]
fn unzip_reads_our_zip(level: &str) {
    let project = Project::new().with_oddities();
    archive(&project, "zip", level);
    let other = moved(&project);
    let said = other.program("unzip", &["-t", "cache/k/cache.zip"]);
    assert!(said.contains("No errors detected"), "{said}");
    // Without these it changes names beyond ASCII, and control characters in names.
    other.program("env", &["LC_ALL=C.UTF-8", "unzip", "-q", "-^", "cache/k/cache.zip"]);
    assert_eq!(other.seen("odd"), project.seen("odd"));
}

#[test]
fn tar_reads_our_tar() {
    let project = Project::new().with_oddities();
    archive(&project, "tarzstd", "default");
    let other = moved(&project);
    other.program("tar", &["--zstd", "-xpf", "cache/k/cache.zip"]);
    assert_eq!(other.seen("odd"), project.seen("odd"));
}

#[test]
fn another_library_reads_our_zip_of_both_methods() {
    for format in ["zip", "zipzstd"] {
        let project = Project::new().with_oddities();
        archive(&project, format, "default");
        let file = fs::File::open(project.path().join("cache/k/cache.zip")).unwrap();
        let mut archive = zip::ZipArchive::new(file).unwrap();
        assert_eq!(archive.len(), 18);
        let mut large = Vec::new();
        std::io::copy(&mut archive.by_name("odd/large").unwrap(), &mut large).unwrap();
        assert!(large == fs::read(project.path().join("odd/large")).unwrap());
    }
}

#[test]
fn we_read_the_zip_of_zip() {
    let project = Project::new().with_oddities();
    fs::create_dir_all(project.path().join("cache/k")).unwrap();
    project.program("zip", &["-q", "-r", "-y", "cache/k/cache.zip", "odd"]);
    let other = moved(&project);
    let ran = other.run(&["cache-extractor", "--file", "cache/k/cache.zip"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(other.seen("odd"), project.seen("odd"));
}

#[test]
fn we_read_the_tar_of_tar() {
    for format in ["--format=gnu", "--format=pax", "--format=ustar"] {
        let project = Project::new().with_oddities();
        if format.ends_with("ustar") {
            // Names of this length are beyond the format.
            fs::remove_dir_all(project.path().join("odd").join("d".repeat(120))).unwrap();
        }
        fs::hard_link(project.path().join("odd/tool"), project.path().join("odd/tool too")).unwrap();
        fs::create_dir_all(project.path().join("cache/k")).unwrap();
        project.program("tar", &["--zstd", format, "-cf", "cache/k/cache.zip", "odd"]);
        let other = moved(&project);
        let ran = other.run(&["cache-extractor", "--file", "cache/k/cache.zip"]);
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert_eq!(other.seen("odd"), project.seen("odd"), "{format}");
    }
}

#[test]
fn gzip_members_of_gzip_are_read() {
    let project = Project::new();
    project.file("report.xml", "<x/>");
    project.program("gzip", &["report.xml"]);
    project.program("mv", &["report.xml.gz", "cache.zip"]);
    let ran = project.run(&["cache-extractor", "--file", "cache.zip"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    assert_eq!(project.read("report.xml"), "<x/>");
}

#[test]
fn later_entries_of_a_name_win() {
    let project = Project::new();
    // Small, then large, then small again, then a link: each takes the place of the one before.
    project.file("a", "one");
    project.program("tar", &["-cf", "all.tar", "a"]);
    project.file("a", noise(3_000_000));
    project.program("tar", &["-rf", "all.tar", "a"]);
    project.program("zstd", &["-q", "all.tar", "-o", "large.zst"]);
    project.file("a", "three");
    project.program("tar", &["-rf", "all.tar", "a"]);
    project.program("zstd", &["-q", "all.tar", "-o", "small.zst"]);
    fs::remove_file(project.path().join("a")).unwrap();
    assert_eq!(project.run(&["cache-extractor", "--file", "large.zst"]).code, 0);
    assert!(fs::read(project.path().join("a")).unwrap() == noise(3_000_000));
    assert_eq!(project.run(&["cache-extractor", "--file", "small.zst"]).code, 0);
    assert_eq!(project.read("a"), "three");
}

#[test]
fn directories_that_cannot_be_written_to_are_filled_first() {
    let project = Project::new();
    project.file("ro/file", "x");
    fs::set_permissions(project.path().join("ro"), fs::Permissions::from_mode(0o555)).unwrap();
    for format in ["zip", "tarzstd"] {
        let name = format!("{format}.cache");
        let ran =
            project.run(&["cache-archiver", "--file", &name, "--path", "ro", "--compression-format", format]);
        assert_eq!(ran.code, 0, "{}", ran.log);
        let other = Project::new();
        let from = project.path().join(&name);
        let ran = other.run(&["cache-extractor", "--file", from.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{}", ran.log);
        assert_eq!(other.seen("ro"), project.seen("ro"));
    }
    fs::set_permissions(project.path().join("ro"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn seventy_thousand_files_need_zip64_and_get_it() {
    let project = Project::new();
    fs::create_dir(project.path().join("many")).unwrap();
    let first = project.path().join("many/first");
    fs::write(&first, "").unwrap();
    for number in 0..70_000 {
        fs::hard_link(&first, project.path().join(format!("many/{number}"))).unwrap_or_else(|_| {
            // Some file systems have fewer links than that.
            fs::write(project.path().join(format!("many/{number}")), "").unwrap();
        });
    }
    let ran = project.run(&["cache-archiver", "--file", "cache.zip", "--path", "many"]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    let listing = project.program("unzip", &["-Z", "-1", "cache.zip"]);
    assert_eq!(listing.lines().count(), 70_002);
    let file = fs::File::open(project.path().join("cache.zip")).unwrap();
    assert_eq!(zip::ZipArchive::new(file).unwrap().len(), 70_002);
}
