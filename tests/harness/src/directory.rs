//! The servers' directories: where they are, and that they do not outlive their process.
//!
//! - A directory is removed when its handle is dropped.
//! - When the process dies first, however it dies, a small shell that only waits for that removes it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Error, Result, project_root};

/// Reads directories until its input ends with the process that holds the other side, then removes them. The servers
/// are dying at the same moment, so it may have to try again.
const JANITOR: &str = r#"
set --
while IFS= read -r directory; do set -- "$@" "$directory"; done
for try in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; rm -rf -- "$@" && sleep 0.3 && rm -rf -- "$@" && break; done
"#;

/// A directory that is removed on drop and after the process's death.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Creates `path` and what is above it; whatever stood there is removed.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        remove(path);
        std::fs::create_dir_all(path).map_err(Error::io(format!("creating {}", path.display())))?;
        let path = path
            .canonicalize()
            .map_err(Error::io(format!("finding {}", path.display())))?;
        remove_after_death(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// `.run/` in the project's root: where servers of tests and demos live.
pub fn run_directory() -> PathBuf {
    project_root().join(".run")
}

/// A new directory below [`run_directory`], removed on drop and after the process's death.
///
/// # Errors
/// When it cannot be created.
pub fn fresh_directory(name: &str) -> Result<tempfile::TempDir> {
    let run = run_directory();
    std::fs::create_dir_all(&run).map_err(Error::io(format!("creating {}", run.display())))?;
    let prefix = format!("{name}-{}-", std::process::id());
    // The servers of other users (postgres) must be able to enter it.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let made = tempfile::Builder::new()
        .prefix(&prefix)
        .permissions(permissions)
        .tempdir_in(&run);
    let made = made.map_err(Error::io(format!(
        "creating a directory in {}",
        run.display()
    )))?;
    remove_after_death(made.path())?;
    Ok(made)
}

/// A server that was just killed may still be writing.
fn remove(path: &Path) {
    for _ in 0..5 {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            _ => return,
        }
    }
}

fn remove_after_death(path: &Path) -> Result<()> {
    static JANITOR: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let janitor = JANITOR.get_or_init(Mutex::default);
    let mut stdin = janitor.lock().unwrap_or_else(PoisonError::into_inner);
    let doing = || format!("registering {} for removal", path.display());
    if stdin.is_none() {
        *stdin = start_janitor().map_err(Error::io(doing()))?;
    }
    stdin
        .as_mut()
        .map_or(Ok(()), |s| writeln!(s, "{}", path.display()))
        .map_err(Error::io(doing()))
}

fn start_janitor() -> std::io::Result<Option<ChildStdin>> {
    let mut shell = Command::new("sh");
    shell.args(["-c", JANITOR, "walferry-harness-janitor"]);
    // Its own process group: Ctrl-C is for us, and then it has its work to do.
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    Ok(shell.spawn()?.stdin.take())
}
