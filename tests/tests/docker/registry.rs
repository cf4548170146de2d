//! A registry with a password, for tests.

use std::process::{Child, Command, Stdio};

use drover_tests::{Engine, eventually, free_port};

/// Debian's registry, with one user.
pub(crate) struct Registry {
    pub(crate) address: String,
    folder: tempfile::TempDir,
    server: Option<Child>,
}

impl Registry {
    pub(crate) const USER: &str = "me";
    /// Its encoded form has characters that engines do not read in the usual alphabet.
    pub(crate) const PASSWORD: &str = "o?>~o?>~o?>~";

    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let passwords = Command::new("htpasswd").args(["-Bbn", Self::USER, Self::PASSWORD]).output();
        let passwords = passwords.expect("tests need htpasswd (Debian: apt-get install apache2-utils)");
        std::fs::write(folder.path().join("htpasswd"), passwords.stdout).unwrap();
        let at = folder.path().display();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\nhttp:\n  addr: {address}\n\
             auth:\n  htpasswd:\n    realm: harbour\n    path: {at}/htpasswd\n"
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut registry = Self { address, folder, server: None };
        registry.open();
        eventually("the registry listens", || std::net::TcpStream::connect(&registry.address).is_ok()).await;
        let login = registry.login();
        let who = ["login", "-u", Self::USER, "-p", Self::PASSWORD, &registry.address];
        let mut args = vec!["--config", &login];
        args.extend(who);
        Engine::shared().docker(&args);
        registry
    }

    /// Puts an image of the engine into it, under this name; the name there.
    pub(crate) fn take(&self, image: &str, name: &str) -> String {
        let there = format!("{}/{name}", self.address);
        let engine = Engine::shared();
        engine.docker(&["tag", image, &there]);
        engine.docker(&["--config", &self.login(), "push", &there]);
        engine.docker(&["rmi", &there]);
        there
    }

    /// Starts it again.
    pub(crate) fn open(&mut self) {
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tests need docker-registry (Debian: apt-get install docker-registry)");
        self.server = Some(server);
    }

    /// Takes it down.
    pub(crate) fn close(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    fn login(&self) -> String {
        format!("{}/.docker", self.folder.path().display())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.close();
    }
}
