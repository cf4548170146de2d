//! Logs in to an instance of an entry and looks there for what jobs need. Asked for by people.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use config::{ExecutorName, Runner};
use connector::{Client, DialOptions, Output};
use fleeting::{
    ConnectInfo, ConnectorSettings, Finding, GroupError, InstanceGroup, InstanceState, Os, Severity,
    with_causes,
};
use job::{Interpreter, Shell};

use super::helper::Helpers;
use super::isolation::Isolation;
use super::settings;
use crate::docker;

const LOGIN: &str = "instance/connect";
const TOOLS: &str = "instance/tools";
const HELPER: &str = "instance/helper";
const ENGINE: &str = "instance/engine";
const NESTING: &str = "instance/nesting";

/// An instance that does not let in by then, although it runs, is taken for unreachable.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes that a shell may say. The answers have a few lines; a profile may add its own.
const LONGEST: usize = 64 * 1024;

/// What an instance is asked for: each line of the answer is a word and what it is about.
const LOOK: &str = "command -v git >/dev/null 2>&1 || echo missing git\necho system $(uname -s)\necho machine $(uname -m)\n\
                    echo login $(id -un)\nexit 0\n";

/// Looks at one instance of an autoscaled entry, if one runs: whether it lets in, and what is there. Without `connect` it is only
/// said what was not looked at. The only traces are a login, and a key that the provider may let in for it.
pub async fn look_at_instances(
    runner: &Runner,
    group: &dyn InstanceGroup,
    base: &Path,
    connect: bool,
) -> Vec<Finding> {
    let contained = runner.executor() == Some(ExecutorName::DockerAutoscaler);
    let isolated = runner.autoscaler.as_ref().is_some_and(config::Autoscaler::is_isolated);
    let what = match (isolated, contained) {
        (true, _) => "the nesting daemon there",
        (false, true) => "the Docker engine there",
        (false, false) => "shell, git and helper there",
    };
    if !connect {
        return vec![
            Finding::new(
                Severity::Notice,
                LOGIN,
                format!("not examined: the login to an instance, and {what}"),
            )
            .repair("drover doctor --connect   # while an instance runs"),
        ];
    }
    let found = match tokio::time::timeout(PATIENCE, client(runner, group, base)).await {
        Ok(Ok(Some((client, os)))) => {
            let mut found = vec![Finding::good(LOGIN, format!("logged in to {}", client.instance()))];
            found.extend(match (contained, os) {
                _ if isolated => nesting(runner, base, &client).await,
                (true, _) => vec![engine(runner, base, &client).await],
                (false, Some(Os::Windows)) => {
                    vec![Finding::new(
                        Severity::Notice,
                        TOOLS,
                        "not examined on Windows: shell, git and helper",
                    )]
                }
                (false, Some(Os::Linux | Os::Darwin) | None) => tools(runner, base, &client).await,
            });
            found
        }
        Ok(Ok(None)) => vec![
            Finding::new(
                Severity::Notice,
                LOGIN,
                format!("no instance runs, so neither the login nor {what} was examined"),
            )
            .repair("drover doctor --connect   # again while an instance runs"),
        ],
        Ok(Err(why)) => vec![unreachable(why)],
        Err(_) => vec![unreachable(format!("no login within {PATIENCE:?}"))],
    };
    if let Err(error) = group.shutdown().await {
        tracing::debug!(error = with_causes(&error), "failed to let go of the group");
    }
    found
}

/// A connection to the first instance that runs, if there is one.
async fn client(
    runner: &Runner,
    group: &dyn InstanceGroup,
    base: &Path,
) -> Result<Option<(Client, Option<Os>)>, String> {
    let connector = connector(runner, base)?;
    let failed = |doing: &str, error: &GroupError| format!("{doing}: {}", with_causes(error));
    group.init(&connector).await.map_err(|error| failed("preparing the group", &error))?;
    let listing = group.update().await.map_err(|error| failed("listing the group", &error))?;
    let running = |seen: &&fleeting::Seen| seen.state == InstanceState::Running;
    let healthy = listing.iter().filter(running).find(|seen| seen.doomed.is_none());
    let Some(seen) = healthy.or_else(|| listing.iter().find(running)) else { return Ok(None) };
    let mut info = group
        .connect_info(&seen.id)
        .await
        .map_err(|error| failed(&format!("finding out how to reach {}", seen.id), &error))?;
    info.settings.timeout = Some(PATIENCE / 2);
    let os = info.settings.os;
    dial(&info, &connector).await.map(|client| Some((client, os)))
}

async fn dial(info: &ConnectInfo, connector: &ConnectorSettings) -> Result<Client, String> {
    let options = DialOptions {
        use_external_addr: connector.use_external_addr,
        // Refused logins are for instances that still boot.
        login_retries: 2,
        ..DialOptions::default()
    };
    let login = info.settings.username.as_deref().unwrap_or("the default login");
    connector::dial(info, &options, &mut |_| ())
        .await
        .map_err(|error| format!("logging in to {} as {login}: {}", info.instance, with_causes(&error)))
}

fn connector(runner: &Runner, base: &Path) -> Result<ConnectorSettings, String> {
    let autoscaler = runner.autoscaler.as_ref().ok_or("the entry has no [runners.autoscaler]")?;
    let connector = autoscaler.connector_config();
    let key = connector.key_path.as_ref().map(|path| settings::key(&base.join(path))).transpose();
    Ok(connector.settings(key.map_err(|error| error.to_string())?))
}

fn unreachable(why: String) -> Finding {
    Finding::new(Severity::Error, LOGIN, why).leads_to("instances get no job, and are replaced without end").repair(
        "let the manager in at the instances' port (22 for SSH) in their security group or firewall; see that their image has \
         an SSH server, and that connector_config has the login of the image",
    )
}

/// Whether the daemon answers. It is left as it is, and no machine is made.
async fn nesting(runner: &Runner, base: &Path, client: &Client) -> Vec<Finding> {
    let bad = |why: String| {
        vec![Finding::new(Severity::Error, NESTING, why)
            .leads_to("instances get no job, and are replaced without end")
            .repair(
                "have the image of the instances start the nesting daemon, and let its socket be used by the login of connector_config",
            )]
    };
    let isolation =
        runner.autoscaler.as_ref().map(|autoscaler| Isolation::of(runner, autoscaler, base, None));
    let isolation = match isolation {
        Some(Ok(Some(isolation))) => isolation,
        Some(Err(error)) => return bad(error.to_string()),
        Some(Ok(None)) | None => return Vec::new(),
    };
    let (at, on) = (isolation.address(), client.instance());
    let asked = match isolation.daemon(client, Duration::ZERO).await {
        Ok(daemon) => daemon.look().await,
        Err(why) => return bad(why),
    };
    let what = match asked {
        Ok(machines) => format!("has {} virtual machines", machines.len()),
        Err(nesting::Error::NotInitialized) => "is not initialized yet, which the manager does".to_owned(),
        Err(error) => match error.without_address() {
            Some(id) => format!("has a virtual machine without an address ({id})"),
            None => return bad(format!("the nesting daemon at {at} on {on}: {}", with_causes(&error))),
        },
    };
    vec![
        Finding::good(NESTING, format!("the nesting daemon at {at} on {on} answers: it {what}")),
        Finding::new(
            Severity::Notice,
            TOOLS,
            "not examined: the image of the virtual machines (login, shell, git, helper), of which none is made for this",
        ),
    ]
}

async fn engine(runner: &Runner, base: &Path, client: &Client) -> Finding {
    match docker::examine_on(runner, base, client).await {
        Ok(what) => Finding::good(ENGINE, what),
        Err(what) => Finding::new(Severity::Error, ENGINE, what)
            .leads_to("instances get no job, and are replaced without end")
            .repair("have the image start Docker, and put the login into the group docker (docs/docker.md)"),
    }
}

async fn tools(runner: &Runner, base: &Path, client: &Client) -> Vec<Finding> {
    let name = runner.shell().as_str();
    let shell: Shell = match name.parse() {
        Ok(shell) => shell,
        Err(error) => {
            let error: job::ShellError = error;
            return vec![
                Finding::new(Severity::Error, TOOLS, error.to_string()).leads_to("the entry takes no jobs"),
            ];
        }
    };
    let mut found = Vec::new();
    let interpreter = Interpreter::of(shell).command();
    // The runner's own stages are for `sh`, whatever the shell of the job's commands is.
    let shells = match shell {
        Shell::Bash => interpreter,
        Shell::Sh | Shell::Pwsh => "sh",
    };
    let said = match run(client, shells, LOOK).await {
        Ok(said) => said,
        Err(why) => return vec![no_shell(name, &why)],
    };
    if shell == Shell::Pwsh
        && let Err(why) = run(client, interpreter, "exit 0").await
    {
        found.push(no_shell(name, &why));
    }
    let answer = |word: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(first, _)| *first == word).map(|(_, rest)| rest.trim().to_owned()).unwrap_or_default()
    };
    let (system, machine) = (answer("system"), answer("machine"));
    found.push(if answer("missing") == "git" {
        Finding::new(Severity::Error, TOOLS, format!("{} has no git", client.instance()))
            .leads_to("jobs cannot get their sources, unless they set GIT_STRATEGY=none")
            .repair("install git in the image of the instances")
    } else {
        Finding::good(
            TOOLS,
            format!("{name} and git are there ({system} on {machine}, login {})", answer("login")),
        )
    });
    found.extend(helper(runner, base, &system, &machine));
    found
}

/// Whether the manager has a helper for what the instance is.
fn helper(runner: &Runner, base: &Path, system: &str, machine: &str) -> Option<Finding> {
    let never = Some(config::HelperInstall::Never);
    if runner.helper.as_ref().and_then(|helper| helper.install) == never {
        return None;
    }
    let helpers = Helpers::new(runner, base);
    let place = (system == "Linux").then(|| helpers.binary(machine)).flatten();
    Some(match place {
        Some(path) => Finding::good(HELPER, format!("`{}` is for instances like this one", path.display())),
        None => {
            let places = helpers.places();
            Finding::new(Severity::Warning, HELPER, format!("no drover-helper for {system} on {machine} in {places}"))
                .leads_to("jobs have no artifacts and caches, unless the image of the instances has a helper")
                .repair(format!(
                    "install -D -m 755 drover-helper /usr/lib/drover/helper/{machine}/drover-helper   # or set [runners.helper].binaries"
                ))
        }
    })
}

fn no_shell(shell: &str, why: &str) -> Finding {
    Finding::new(Severity::Error, TOOLS, format!("the shell {shell} does not run there: {why}"))
        .leads_to("every job of the entry fails")
        .repair("install the shell in the image of the instances, or set `shell = \"sh\"`")
}

/// Feeds a script to a shell; what it says, or why it failed.
async fn run(client: &Client, command: &str, script: &'static str) -> Result<String, String> {
    let asked = async {
        let mut process = client
            .exec(command, Bytes::from_static(script.as_bytes()))
            .await
            .map_err(|error| with_causes(&error))?;
        let mut said = Vec::new();
        while let Some(output) = process.next().await.map_err(|error| with_causes(&error))? {
            let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output;
            if said.len() + bytes.len() > LONGEST {
                return Err(format!("it says more than {LONGEST} bytes"));
            }
            said.extend_from_slice(&bytes);
        }
        let status = process.wait().await.map_err(|error| with_causes(&error))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        if status.success() { Ok(said) } else { Err(format!("exit code {}: {}", status.code(), said.trim())) }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}
