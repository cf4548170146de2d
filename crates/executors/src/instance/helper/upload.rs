//! Puts the helper on an instance.

use std::time::Duration;

use connector::Client;
use tokio::time::Instant;

use super::binaries::Binary;
use super::look::{ABSOLUTE, DIGEST};
use super::{HelperError, VERSION, output, quote};

/// Bytes that are sent at a time.
const PIECE: usize = 256 * 1024;
/// How often an upload that takes long is heard of.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Characters of the SHA-256 in the file's name: two managers of different versions do not meet in one file.
const SHORT: usize = 12;

/// Takes the binary from standard input, and says its path. It gets its name only when it is complete, checked, and runs; so
/// an upload that is cut off leaves nothing, and none that is in use is written to. No single quote may be in it.
const TAKE: &str = r#"
[ -d "$d" ] || mkdir -p "$d"
if [ -L "$d" ] || [ ! -O "$d" ]; then echo "the folder $d is not a folder of this user" >&2; exit 1; fi
chmod go-w "$d"
t=$d/.$n.$$
clean() { rm -f "$t"; }
trap clean EXIT
trap "exit 1" HUP INT TERM
cat >"$t"
f=$(digest <"$t")
if [ "$f" != "$s" ]; then echo "its SHA-256 is $f, but $s was sent" >&2; exit 1; fi
chmod 0755 "$t"
"$t" --version >/dev/null
mv -f "$t" "$d/$n"
echo "$d/$n"
"#;

/// Uploads the helper; returns its path on the instance.
pub(super) async fn upload(client: &Client, binary: &Binary, folder: &str) -> Result<String, HelperError> {
    let instance = client.instance();
    let name = format!("drover-helper-{VERSION}-{}", &binary.digest[..SHORT.min(binary.digest.len())]);
    let script = format!("set -eu; umask 022; s={}; n={name}; d=$1\n{ABSOLUTE}{DIGEST}{TAKE}", binary.digest);
    let command = format!("sh -c {} sh {}", quote(&script), quote(folder));
    tracing::info!(instance, size = %binary.size(), from = %binary.path.display(), "installing drover-helper");
    let started = Instant::now();
    let (mut stdin, process) = client.exec_piped(&command).await?;
    let total = binary.bytes.len();
    let (mut sent, mut said) = (0, started);
    while sent < total {
        let end = total.min(sent + PIECE);
        stdin.write(binary.bytes.slice(sent..end)).await?;
        sent = end;
        if said.elapsed() >= PROGRESS_INTERVAL && sent < total {
            said = Instant::now();
            tracing::info!(instance, percent = sent * 100 / total, "installing drover-helper");
        }
    }
    stdin.finish().await?;
    let path = output(process).await?.trim().to_owned();
    if path.is_empty() {
        return Err(HelperError::Failed { why: "it did not say where it is".to_owned(), instead: None });
    }
    tracing::info!(
        instance,
        path,
        milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "installed drover-helper"
    );
    Ok(path)
}
