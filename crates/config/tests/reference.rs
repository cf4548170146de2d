//! The reference page in `docs/` is the one that the schema makes.

use std::path::Path;

#[test]
fn the_reference_page_is_the_one_that_the_schema_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let made = drover_config::reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/configuration.md is out of date: run UPDATE_REFERENCE=1 cargo test -p drover-config --test reference"
    );
}
