//! `get_sources`: the project as the job wants it.

use super::exports::{Files, enter_project, exports, umask};
use super::steps::{commands, one};
use super::submodules;
use super::writer::{Writer, command, quote, remove_folder};
use crate::context::Context;
use crate::flags::FeatureFlag;
use crate::remote::{Access, TOKEN_USER, config_section, config_value};
use crate::runner::Isolation;
use crate::settings::{GitStrategy, SubmoduleStrategy};

/// Answers git's question for a password with the job token, which is in the environment and in no file.
const TOKEN_HELPER: &str = r#"!f(){ if [ "$1" = get ]; then echo "password=$CI_JOB_TOKEN"; fi; }; f"#;

/// Where the external configuration has the job token for a helper that takes it from there.
const TOKEN_SECTION: &str = "drover";

/// Git's settings for this job, outside of the project.
const EXTERNAL_CONFIG: &str = ".gitlab-runner.ext.conf";

/// Locks and hooks that a killed job may have left in a git folder.
const LEFT_OVER: [&str; 5] =
    ["index.lock", "shallow.lock", "HEAD.lock", "config.lock", "hooks/post-checkout"];

/// Whether hooks are part of the script.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hooks {
    /// They are.
    Inside,
    /// Another shell runs them before and after this script, and has exported everything.
    Outside,
}

/// Whether users' commands run in this stage.
pub(crate) fn has_hooks(context: &Context) -> bool {
    context.has_repository()
        && (!context.runner.pre_get_sources_script.trim().is_empty()
            || !context.runner.post_get_sources_script.trim().is_empty()
            || context.job.hooks.iter().any(|hook| !hook.script.is_empty()))
}

/// What a checkout sets in the environment, for git and for the hooks around it.
pub(crate) fn environment(context: &Context) -> Vec<(&'static str, String)> {
    let mut environment =
        vec![("GIT_TERMINAL_PROMPT", "0".to_owned()), ("GCM_INTERACTIVE", "Never".to_owned())];
    environment.push(("GLR_EXT_GIT_CONFIG_PATH", context.temp_file(EXTERNAL_CONFIG)));
    environment
}

/// The stage as a whole.
pub(super) fn get_sources(writer: &mut Writer, context: &Context, hooks: Hooks) {
    if hooks == Hooks::Inside {
        exports(writer, context, Files::Written);
        writer.line("export GIT_TERMINAL_PROMPT=0 GCM_INTERACTIVE=Never");
    }
    let access = Access::of(context);
    let project = quote(&context.paths.project);
    if !context.has_repository() {
        if context.settings.strategy == GitStrategy::Empty {
            writer.notice("Skipping Git repository setup and creating an empty build directory");
            writer.line(remove_folder(&context.paths.project));
            writer.line(format!("mkdir -p {project}"));
        } else {
            writer.notice("Skipping Git repository setup");
            writer.line(format!("[ -d {project} ] || mkdir -p {project}"));
        }
        if context.flags.is_on(FeatureFlag::GitUrlsWithoutTokens) {
            write_files(
                writer,
                context,
                &[(context.temp_file(".glr.gconf"), helper_config(&access, TOKEN_HELPER))],
            );
        }
        writer.notice("Skipping Git checkout");
        writer.notice("Skipping Git submodules setup");
        return;
    }

    if let (Isolation::Disposable, Some(url)) = (context.runner.isolation, &access.credential_url) {
        for (key, path) in tls_files(context) {
            let key = format!("http.{url}.{key}");
            writer.command(["git", "config", "--global", &key, &path]);
        }
    }
    if hooks == Hooks::Inside {
        one(writer, context, "pre_clone_script", &context.runner.pre_get_sources_script);
        hook(writer, context, "pre_get_sources_script", "pre_clone_script");
    }
    if context.settings.lfs_skip_smudge.is_none() {
        // Objects are pulled in one go later, which is faster than one by one at checkout.
        writer.line("export GIT_LFS_SKIP_SMUDGE=1");
    }
    fetch(writer, context, &access);
    checkout(writer, context);
    submodules::update(writer, context);
    if hooks == Hooks::Inside {
        hook(writer, context, "post_get_sources_script", "post_clone_script");
        one(writer, context, "post_clone_script", &context.runner.post_get_sources_script);
    }
    forget_credentials(writer, context);
}

/// Empties the project between two attempts.
pub(super) fn clear_worktree(writer: &mut Writer, context: &Context) {
    super::exports::start_dir(writer, context);
    let project = quote(&context.paths.project);
    writer.notice("Deleting tracked and untracked files...");
    writer.line(format!(
        "if [ -d {project} ]; then\ncd {project}\ngit rm -rf --ignore-unmatch --quiet .\ngit clean -ffdx -q\nfi"
    ));
}

/// Makes git's credential helpers forget the job token.
pub(super) fn forget_credentials(writer: &mut Writer, context: &Context) {
    if let Some(url) = Access::of(context).credential_url {
        writer.line(format!(
            "git credential reject >/dev/null 2>&1 <<'DROVER_END' || :\nurl={url}\nusername={TOKEN_USER}\nDROVER_END"
        ));
    }
}

/// Removes what a killed or hostile job may have left in `.git`.
pub(super) fn git_cleanup(writer: &mut Writer, context: &Context) {
    let git = format!("{}/.git", context.paths.project);
    let mut left_over: Vec<&str> = LEFT_OVER.to_vec();
    if context.runner.clean_git_config {
        left_over.extend(["config", "hooks"]);
    }
    writer.line(format!("if [ -d {} ]; then", quote(&git)));
    let paths: Vec<String> = left_over.iter().map(|name| format!("{git}/{name}")).collect();
    writer.command(["rm", "-rf"].into_iter().chain(paths.iter().map(String::as_str)));
    writer.line(format!(
        "if [ -d {refs} ]; then find {refs} -type f -name '*.lock' -exec rm -f {{}} +; fi",
        refs = quote(&format!("{git}/refs"))
    ));
    if context.settings.submodules != SubmoduleStrategy::None {
        // A folder with a head and objects is a git folder; submodules may have any name.
        let paths: Vec<String> = left_over.iter().map(|name| format!("\"$d/{name}\"")).collect();
        let each = format!(
            "for h do d=${{h%/HEAD}}; if [ -d \"$d/objects\" ]; then rm -rf {}; fi; done",
            paths.join(" ")
        );
        writer.line(format!(
            "if [ -d {modules} ]; then find {modules} -type f -name HEAD -exec sh -c {each} sh {{}} +; fi",
            modules = quote(&format!("{git}/modules")),
            each = quote(&each)
        ));
    }
    writer.line("fi");
}

fn hook(writer: &mut Writer, context: &Context, name: &str, prefix: &str) {
    for hook in context.job.hooks.iter().filter(|hook| hook.name == name) {
        commands(writer, context, prefix, &hook.script);
    }
}

/// Brings the repository up to date.
fn fetch(writer: &mut Writer, context: &Context, access: &Access) {
    let settings = &context.settings;
    let project = &context.paths.project;
    let quoted = quote(project);
    if settings.strategy == GitStrategy::Clone {
        writer.line(remove_folder(project));
    } else {
        git_cleanup(writer, context);
    }
    let correlation = correlation_id(context);
    if let Some(id) = correlation {
        writer.notice(&format!("Gitaly correlation ID: {id}"));
    }
    configuration(writer, context, access, correlation);
    match settings.depth {
        0 => writer.notice("Fetching changes..."),
        depth => writer.notice(&format!("Fetching changes with git depth set to {depth}...")),
    }
    // In a folder that did not exist there is nothing to clean.
    writer.line(format!("DROVER_NEW=; if [ ! -e {quoted} ]; then DROVER_NEW=folder; fi"));
    if context.runner.safe_directory_checkout {
        writer.command(["git", "config", "--global", "--add", "safe.directory", project]);
    }
    if native_clone(context) {
        writer
            .line("case $(git version) in *' '[01].* | *' 2.'[0-9].* | *' 2.'[123][0-9].* | *' 2.4'[0-8].*)");
        init_and_fetch(writer, context, access);
        writer.line(";; *)");
        clone(writer, context, access);
        writer.line(";; esac");
    } else {
        init_and_fetch(writer, context, access);
    }
}

/// `git clone` needs a ref by name.
fn native_clone(context: &Context) -> bool {
    context.flags.is_on(FeatureFlag::UseGitNativeClone)
        && context.settings.strategy == GitStrategy::Clone
        && !context.job.git_info.ref_name.is_empty()
}

fn init_and_fetch(writer: &mut Writer, context: &Context, access: &Access) {
    let settings = &context.settings;
    let git_info = &context.job.git_info;
    let project = &context.paths.project;
    writer.line(format!(
        "DROVER_FRESH=; if [ ! -e {} ]; then DROVER_FRESH=yes; fi",
        quote(&format!("{project}/.git/HEAD"))
    ));
    let template = format!("--template={}", context.temp_file("git-template"));
    let format = format!("--object-format={}", git_info.repo_object_format);
    let mut init = vec!["git", "init", &template];
    if !matches!(git_info.repo_object_format.as_str(), "" | "sha1") {
        init.push(&format);
    }
    init.push(project);
    writer.command(init);
    enter_project(writer, context);
    if !context.runner.clean_git_config {
        // The template fills in a configuration only where none is.
        writer.line(format!(
            "if [ -z \"$DROVER_FRESH\" ]; then git remote set-url origin {url} 2>/dev/null || git remote add origin {url}",
            url = quote(&access.origin)
        ));
        writer.line(
            "git config --replace-all include.path \"$GLR_EXT_GIT_CONFIG_PATH\" '\\.gitlab-runner\\.ext\\.conf$'; fi",
        );
    }
    writer.line(
        "if [ -n \"$DROVER_FRESH\" ]; then printf '\\033[32;1m%s\\033[0;m\\n' 'Created fresh repository.'; fi",
    );
    let mut fetch = git(context, access);
    fetch.extend(["fetch", "--no-recurse-submodules"].map(str::to_owned));
    let mut fetch = command(fetch.iter().map(String::as_str));
    if settings.depth > 0 {
        fetch.push_str(&format!(" --depth {}", settings.depth));
    } else {
        writer.line("DROVER_DEEPEN=; if [ -f .git/shallow ]; then DROVER_DEEPEN=--unshallow; fi");
        fetch.push_str(" ${DROVER_DEEPEN:+\"$DROVER_DEEPEN\"}");
    }
    for flag in &settings.fetch_flags {
        fetch.push(' ');
        fetch.push_str(&quote(flag));
    }
    fetch.push_str(" origin");
    for refspec in &git_info.refspecs {
        fetch.push(' ');
        fetch.push_str(&quote(refspec));
    }
    writer.line(fetch);
}

/// `FF_USE_GIT_NATIVE_CLONE`.
fn clone(writer: &mut Writer, context: &Context, access: &Access) {
    let settings = &context.settings;
    let git_info = &context.job.git_info;
    let mut words = git(context, access);
    words.extend(["clone", "--no-checkout"].map(str::to_owned));
    words.push(format!("--template={}", context.temp_file("git-template")));
    if settings.depth > 0 {
        words.extend(["--depth".to_owned(), settings.depth.to_string()]);
    }
    let which = if git_info.ref_name.starts_with("refs/") { "--revision" } else { "--branch" };
    words.push(format!("{which}={}", git_info.ref_name));
    words.extend(settings.clone_flags.iter().cloned());
    words.extend([access.origin.clone(), context.paths.project.clone()]);
    // The template must not name a remote that clone wants to make.
    writer.command([
        "git",
        "config",
        "--file",
        &context.temp_file("git-template/config"),
        "--remove-section",
        "remote.origin",
    ]);
    writer.command(words.iter().map(String::as_str));
    enter_project(writer, context);
}

/// `git` with what each call over the network needs.
fn git(context: &Context, access: &Access) -> Vec<String> {
    let product = &context.runner.product;
    let mut words = vec![
        "git".to_owned(),
        "-c".to_owned(),
        format!("http.userAgent={} {} {}", product.name, product.version, product.platform),
    ];
    if context.flags.is_on(FeatureFlag::UseGitProactiveAuth)
        && let Some(url) = &access.credential_url
    {
        words.extend(["-c".to_owned(), format!("http.{url}.proactiveAuth=basic")]);
    }
    words
}

fn checkout(writer: &mut Writer, context: &Context) {
    if !context.settings.checkout {
        writer.notice("Skipping Git checkout");
        return;
    }
    let git_info = &context.job.git_info;
    let short: String = git_info.sha.chars().take(8).collect();
    writer.notice(&format!("Checking out {short} as detached HEAD (ref is {})...", git_info.ref_name));
    writer.command(["git", "-c", "submodule.recurse=false", "checkout", "-f", "-q", &git_info.sha]);
    if !context.settings.clean_flags.is_empty() {
        let clean =
            ["git", "clean"].into_iter().chain(context.settings.clean_flags.iter().map(String::as_str));
        writer.line(format!("if [ -z \"$DROVER_NEW\" ]; then {}; fi", command(clean)));
    }
    if context.settings.lfs_skip_smudge != Some(true) {
        writer.line("if command -v git-lfs >/dev/null 2>&1; then git lfs pull; fi");
    }
}

/// The id that git sends along to find a request in Gitaly's log.
fn correlation_id(context: &Context) -> Option<&str> {
    let id = context.placement.correlation_id.as_str();
    (context.flags.is_on(FeatureFlag::UseGitalyCorrelationId) && !id.is_empty()).then_some(id)
}

/// Writes git's configuration: the template of `.git/config`, and the file outside of the project that holds credentials
/// and everything else that a job must not be able to leave to the next.
fn configuration(writer: &mut Writer, context: &Context, access: &Access, correlation: Option<&str>) {
    let external_path = context.temp_file(EXTERNAL_CONFIG);
    let helper = context.flags.is_on(FeatureFlag::GitUrlsWithoutTokens);
    let mut external = String::new();
    if let Some(id) = correlation {
        let header = config_value(&format!("X-Gitaly-Correlation-ID: {id}"));
        external.push_str(&format!("[http]\n\textraHeader = {header}\n"));
    }
    if context.flags.is_on(FeatureFlag::UseGitBundleUris) {
        external.push_str("[transfer]\n\tbundleURI = true\n");
    }
    if let Some(url) = &access.credential_url {
        let files = tls_files(context);
        if !files.is_empty() {
            external.push_str(&format!("{}\n", config_section("http", url)));
        }
        for (key, path) in files {
            external.push_str(&format!("\t{key} = {}\n", config_value(&path)));
        }
    }
    for (with, from) in &access.rewrites {
        external.push_str(&format!(
            "{}\n\tinsteadOf = {}\n",
            config_section("url", with),
            config_value(from)
        ));
    }
    if helper {
        external.push_str(&helper_config(access, TOKEN_HELPER));
    } else if !access.helper_urls.is_empty() {
        let token = config_value(context.job.token.expose());
        external.push_str(&helper_config(access, &file_helper(&external_path)));
        external.push_str(&format!("[{TOKEN_SECTION}]\n\tjobToken = {token}\n"));
    }

    let mut template = "[init]\n\tdefaultBranch = none\n[fetch]\n\trecurseSubmodules = false\n[credential]\n\tinteractive = never\n[gc]\n\tautoDetach = false\n".to_owned();
    if !helper {
        template.push_str(&format!("[include]\n\tpath = {}\n", config_value(&external_path)));
    }
    template.push_str(&format!(
        "[remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        config_value(&access.origin)
    ));
    let template_dir = context.temp_file("git-template");
    writer.line(format!("[ -d {dir} ] || mkdir -p {dir}", dir = quote(&template_dir)));
    let mut files = vec![(external_path.clone(), external), (format!("{template_dir}/config"), template)];
    if helper {
        // An include of a file that exists but cannot be read is fatal, so the shell looks first.
        let seed = format!("[include]\n\tpath = {}\n", config_value(&external_path));
        files.push((context.temp_file(".glr.gconf"), seed));
    }
    write_files(writer, context, &files);
    if helper {
        let seed = context.temp_file(".glr.gconf");
        writer.line(format!(
            "for DROVER_FILE in \"${{HOME:-}}/.gitconfig\" \"${{HOME:-}}/.config/git/config\"; do\n\
             if [ -r \"$DROVER_FILE\" ]; then git config --file {seed} --add include.path \"$DROVER_FILE\"; fi; done",
            seed = quote(&seed)
        ));
    }
    writer.line(format!("export GLR_EXT_GIT_CONFIG_PATH={}", quote(&external_path)));
}

/// Answers git's question for a password with the job token from a private file. So git can authenticate where the job's
/// environment is not: below `sudo`, and where the job has made `CI_JOB_TOKEN` something else.
fn file_helper(path: &str) -> String {
    let path = path.replace('\'', r"'\''");
    format!(
        "!f(){{ if [ \"$1\" = get ]; then t=$(git config --file '{path}' --get {TOKEN_SECTION}.jobToken) && echo \"password=$t\"; fi; }}; f"
    )
}

/// Inherited helpers are cleared, then one is added that knows the job token. A token in a URL would be an argument of
/// `git-remote-http`.
fn helper_config(access: &Access, helper: &str) -> String {
    access
        .helper_urls
        .iter()
        .map(|url| {
            format!(
                "{}\n\thelper = \"\"\n\thelper = {}\n\tusername = {TOKEN_USER}\n",
                config_section("credential", url),
                config_value(helper)
            )
        })
        .collect()
}

/// Git's settings for the TLS files that the job has.
fn tls_files(context: &Context) -> Vec<(&'static str, String)> {
    [
        ("sslCAInfo", "CI_SERVER_TLS_CA_FILE"),
        ("sslCert", "CI_SERVER_TLS_CERT_FILE"),
        ("sslKey", "CI_SERVER_TLS_KEY_FILE"),
    ]
    .into_iter()
    .filter(|(_, key)| context.variables.find(key).is_some_and(|variable| variable.file))
    .map(|(setting, key)| (setting, context.variables.file_path(key)))
    .collect()
}

/// Writes files that only the job's user can read.
fn write_files(writer: &mut Writer, context: &Context, files: &[(String, String)]) {
    let mut line = format!("( {}", umask(context));
    for (path, content) in files {
        line.push_str(&format!(" printf %s {} >{};", quote(content), quote(path)));
    }
    line.push_str(" )");
    writer.line(line);
}
