//! Plays every scenario of `tests/scenarios` and compares with what was recorded. `UPDATE=1` records anew.

use std::path::{Path, PathBuf};

#[test]
fn every_scenario_goes_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 12, "{} scenarios", files.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for file in &files {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).expect("a text");
        let played = drover_simulator::play(&text, &name).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let again = drover_simulator::play(&text, &name).expect("it went well before");
        assert_eq!(played, again, "{name} goes the same way each time");
        let recorded = file.with_extension("out");
        if update {
            std::fs::write(&recorded, &played).expect("a folder to write to");
        } else if std::fs::read_to_string(&recorded).unwrap_or_default() != played {
            differing.push(format!("{name} goes otherwise than recorded:\n{played}"));
        }
    }
    assert!(differing.is_empty(), "{}\nif that is right, record it: UPDATE=1", differing.join("\n"));
}

#[test]
fn a_wrong_line_is_named_with_what_was_expected() {
    let error = drover_simulator::play("job a\nsleep 5\n", "x.txt").unwrap_err().to_string();
    assert!(error.starts_with("x.txt:2: `sleep` is unknown; a line is one of:"), "{error}");
    let error = drover_simulator::play("settings\nidle_cuont = 1\n", "x.txt").unwrap_err().to_string();
    assert_eq!(error, "x.txt:1: `settings` has no `end`");
    let error = drover_simulator::play("\nsettings\nmax_instances = \"many\"\nend\n", "x.txt").unwrap_err();
    assert!(
        chain(&error).starts_with("x.txt:2: the settings that begin here are wrong"),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).contains("max_instances"), "{}", chain(&error));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
