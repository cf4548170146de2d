//! The repository that jobs check out.

/// Path of the project at GitLab.
pub(crate) const PROJECT: &str = "harbour/lighthouse";

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../fixtures/demo/repository/", $path)))),*]
    };
}

/// Path and content of every file.
pub(crate) const FILES: &[(&str, &str)] = files![
    ".gitlab-ci.yml",
    "README.md",
    "ci/audit.sh",
    "ci/build.sh",
    "ci/deploy.sh",
    "ci/docs.sh",
    "ci/integration.sh",
    "ci/lights-out.sh",
    "ci/lint.sh",
    "ci/package.sh",
    "ci/soak.sh",
    "ci/test.sh",
    "ci/work.sh",
    "src/morse.sh",
    "tests/cases.txt",
];
