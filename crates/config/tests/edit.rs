//! Saving keeps what people wrote.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use drover_config::{ConfigFile, EditError, ExposeSecret, SecretString};

const FILE: &str = "\
# our runners
concurrent = 4   # four cores

[session_server]
  session_timeout = 60

# the big one
[[runners]]
  name = \"big\"   # never rename
  url = \"https://gitlab.example.com\"
  # from the vault
  token   = \"$BIG_TOKEN\" # rotated by hand
  token_obtained_at = 2026-01-01T00:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = \"instance\"
  [runners.autoscaler]
    plugin = \"aws\"

# the small one
[[runners]]
name = \"small\"
url = \"https://gitlab.example.com\"
token = \"glrt-small\"
executor = \"shell\"
";

#[test]
fn opening_and_saving_changes_nothing() {
    let (_dir, path) = file(FILE);
    ConfigFile::open(&path).unwrap().save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), FILE);
}

#[test]
fn a_new_token_keeps_comments_and_spaces() {
    let (_dir, path) = file(FILE);
    let mut config = ConfigFile::open(&path).unwrap();
    let obtained = "2026-11-01T10:00:00.123Z".parse().unwrap();
    let expires = "2026-12-01T10:00:00Z".parse().unwrap();
    config.set_runner_token(0, &SecretString::from("glrt-new"), Some(obtained), Some(expires)).unwrap();
    config.set_runner_token(1, &SecretString::from("glrt-other"), Some(obtained), None).unwrap();
    config.save().unwrap();
    let expected = FILE
        .replace("token   = \"$BIG_TOKEN\" # rotated by hand", "token   = \"glrt-new\" # rotated by hand")
        .replace("2026-01-01T00:00:00Z", "2026-11-01T10:00:00Z")
        .replace("0001-01-01T00:00:00Z", "2026-12-01T10:00:00Z")
        .replace(
            "token = \"glrt-small\"\nexecutor = \"shell\"\n",
            "token = \"glrt-other\"\nexecutor = \"shell\"\ntoken_obtained_at = 2026-11-01T10:00:00Z\n",
        );
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
}

#[test]
fn a_removed_entry_takes_its_comments_along_and_leaves_the_others() {
    let (_dir, path) = file(FILE);
    let mut config = ConfigFile::open(&path).unwrap();
    config.remove_runner(0).unwrap();
    assert!(matches!(config.remove_runner(1), Err(EditError::NoRunner(1))));
    config.save().unwrap();
    let start = FILE.find("# the big one").unwrap();
    let end = FILE.find("# the small one").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}{}", &FILE[..start], &FILE[end..]));

    config.remove_runner(0).unwrap();
    config.save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().trim_end(), FILE[..start].trim_end());
}

#[test]
fn a_new_entry_is_appended_in_the_order_of_the_reference_page() {
    let (_dir, path) = file("concurrent = 1\n");
    let entry: toml::Table = toml::from_str(
        "executor = 'docker-autoscaler'\ntoken = 'glrt-a\"b'\nid = 7\nurl = 'https://g'\nname = 'n'\n\
         token_obtained_at = 2026-01-01T00:00:00Z\nenvironment = ['A=1']\n\
         [docker]\nimage = 'alpine'\nvolumes = ['/cache']\n\
         [autoscaler]\nplugin = 'aws'\n[autoscaler.plugin_config]\nname = 'g'\n\
         [[autoscaler.policy]]\nidle_count = 1\n[[autoscaler.policy]]\nidle_time = '1m'\n",
    )
    .unwrap();
    let mut config = ConfigFile::open(&path).unwrap();
    assert_eq!(config.append_runner(&entry).unwrap(), 0);
    assert_eq!(config.append_runner(&toml::from_str("name = 'second'").unwrap()).unwrap(), 1);
    config.save().unwrap();
    insta::assert_snapshot!(fs::read_to_string(&path).unwrap());
    let loaded = ConfigFile::open(&path);
    assert!(matches!(loaded, Err(EditError::Locked(_))), "the first editor still holds the file");
    drop(config);
    let loaded = ConfigFile::open(&path).unwrap().read(&|_| None).unwrap();
    assert_eq!(loaded.config.runners[0].token().unwrap().expose_secret(), "glrt-a\"b");
    assert_eq!(loaded.config.runners[0].autoscaler.as_ref().unwrap().policy.len(), 2);
}

#[test]
fn an_entry_appended_after_other_sections_comes_last() {
    let (_dir, path) = file(FILE);
    let mut config = ConfigFile::open(&path).unwrap();
    config.append_runner(&toml::from_str("name = 'third'\n[docker]\nimage = 'a'").unwrap()).unwrap();
    config.save().unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("{FILE}\n[[runners]]\n  name = \"third\"\n  [runners.docker]\n    image = \"a\"\n")
    );
}

#[test]
fn a_missing_file_and_directory_are_created_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/config.toml");
    let mut config = ConfigFile::open(&path).unwrap();
    config.append_runner(&toml::from_str("name = 'n'").unwrap()).unwrap();
    config.save().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "[[runners]]\n  name = \"n\"\n");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
}

#[test]
fn saving_narrows_the_mode_and_leaves_nothing_else_behind() {
    let (dir, path) = file(FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut config = ConfigFile::open(&path).unwrap();
    config.save().unwrap();
    assert_eq!(mode(&path), 0o600);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".config.toml.lock", "config.toml"]);
}

#[test]
fn a_link_stays_a_link() {
    let (dir, path) = file(FILE);
    let link = dir.path().join("link.toml");
    symlink(&path, &link).unwrap();
    let mut config = ConfigFile::open(&link).unwrap();
    config.remove_runner(1).unwrap();
    config.save().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(!fs::read_to_string(&path).unwrap().contains("small"));
}

#[test]
fn a_change_by_someone_else_is_not_overwritten() {
    let (_dir, path) = file(FILE);
    let mut config = ConfigFile::open(&path).unwrap();
    config.remove_runner(0).unwrap();
    fs::write(&path, "concurrent = 9\n").unwrap();
    assert!(matches!(config.save(), Err(EditError::Changed(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "concurrent = 9\n");
}

#[test]
fn a_broken_file_is_refused_with_the_line() {
    let (_dir, path) = file("[[runners]\n");
    let error = ConfigFile::open(&path).unwrap_err();
    assert!(error.to_string().contains(":1:11: error: not valid TOML"), "{error}");
}

#[test]
fn inline_entries_are_not_edited() {
    let (_dir, path) = file("runners = [{ name = \"a\" }]\n");
    let mut config = ConfigFile::open(&path).unwrap();
    assert!(matches!(config.remove_runner(0), Err(EditError::Inline)));
    assert!(matches!(config.append_runner(&toml::Table::new()), Err(EditError::Inline)));
}

#[test]
fn the_editor_prints_no_secret() {
    let (_dir, path) = file(FILE);
    let config = ConfigFile::open(&path).unwrap();
    assert!(!format!("{config:?}").contains("glrt-small"));
    assert!(config.text().expose_secret().contains("glrt-small"));
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
