//! What every script begins with: the job's variables.

use super::writer::{Writer, quote};
use crate::context::Context;
use crate::runner::TempAccess;
use crate::shell::export::{self, STATUS};

/// Variables of PowerShell itself, which cannot be set or mean something else where they are set: a job's variable of such a
/// name is in the environment alone. Names are compared without regard to case, as PowerShell does.
const RESERVED: [&str; 32] = [
    "?",
    "_",
    "args",
    "consolefilename",
    "enabledexperimentalfeatures",
    "error",
    "erroractionpreference",
    "executioncontext",
    "false",
    "foreach",
    "home",
    "host",
    "input",
    "iscoreclr",
    "islinux",
    "ismacos",
    "iswindows",
    "lastexitcode",
    "matches",
    "myinvocation",
    "null",
    "outputencoding",
    "pid",
    "psculture",
    "psedition",
    "pshome",
    "psuiculture",
    "psversiontable",
    "pwd",
    "shellid",
    "this",
    "true",
];

/// Sets all variables of the job, in the environment and as variables of PowerShell, then what earlier stages left in
/// `GITLAB_ENV`.
pub(super) fn exports(writer: &mut Writer, context: &Context) {
    writer.line("$DroverStart = $PWD.ProviderPath");
    let temp = quote(&context.paths.temp);
    let mode = match context.runner.temp_access {
        TempAccess::Owner => "700",
        TempAccess::Everyone => "777",
    };
    writer.line(format!("if (-not (Test-Path -LiteralPath {temp})) {{"));
    writer.checked(format!("& /bin/mkdir -p -m {mode} {temp}"));
    writer.line("}");
    if let Some(status) = export::status(context) {
        variable(writer, STATUS, status);
    }
    for export in export::exports(context) {
        if let Some(content) = export.content {
            writer.line(format!("[IO.File]::WriteAllText({}, {})", quote(&export.value), quote(content)));
        }
        variable(writer, export.key, &export.value);
    }
    // Lines are taken literally, as GitLab Runner does.
    writer.line(
        "if (Test-Path -LiteralPath $env:GITLAB_ENV) {\n\
         foreach ($DroverLine in [IO.File]::ReadAllLines($env:GITLAB_ENV)) {\n\
         if ($DroverLine -match '^([A-Za-z_][A-Za-z0-9_]*)=(.*)$') {\n\
         [Environment]::SetEnvironmentVariable($Matches[1], $Matches[2])\n\
         Set-Variable -Name $Matches[1] -Value $Matches[2] -ErrorAction SilentlyContinue\n\
         }\n\
         }\n\
         } else { [IO.File]::WriteAllText($env:GITLAB_ENV, '') }",
    );
}

/// Goes to the project.
pub(super) fn enter_project(writer: &mut Writer, context: &Context) {
    writer.line(format!("Set-Location -LiteralPath {}", quote(&context.paths.project)));
}

/// Sets one variable.
pub(super) fn variable(writer: &mut Writer, key: &str, value: &str) {
    let value = quote(value);
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(key)) {
        writer.line(format!("$env:{key} = {value}"));
    } else {
        writer.line(format!("$env:{key} = ${key} = {value}"));
    }
}
