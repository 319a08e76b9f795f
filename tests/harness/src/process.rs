//! A child process with a log, that cannot outlive this process.
//!
//! - The kernel signals the child when this process dies, however it dies (`setpriv --pdeathsig`).
//! - The child has its own process group, so that Ctrl-C in a terminal reaches only this process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::{Error, Result};

const DROP_DEADLINE: Duration = Duration::from_secs(30);
const TAIL_BYTES: u64 = 4_000;

/// A running (or ended) child process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    exit: Arc<Exit>,
}

/// How the child ended, once it has.
#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

struct Spawn {
    command: Command,
    reply: Sender<std::io::Result<Child>>,
}

// === impl Process ===

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn spawn(command: &Command, log: &Path) -> Result<Self> {
        Self::spawn_wrapped(wrap(None, Some("KILL"), command), command, log)
    }

    /// Starts PostgreSQL, as `user` when given, which only root can. It ends itself at our death: killed it would leave
    /// a segment of System V shared memory.
    pub(crate) fn spawn_postgres(
        user: Option<&str>,
        command: &Command,
        log: &Path,
    ) -> Result<Self> {
        Self::spawn_wrapped(wrap(user, Some("QUIT"), command), command, log)
    }

    fn spawn_wrapped(mut wrapped: Command, command: &Command, log: &Path) -> Result<Self> {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let open = || File::options().create(true).append(true).open(log);
        let output = open().and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = output.map_err(Error::io(format!("opening {}", log.display())))?;
        wrapped
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = spawn_for_life(wrapped).map_err(Error::io(format!("starting {name}")))?;
        let pid = child.id();
        Ok(Self {
            name,
            log: log.to_owned(),
            pid,
            exit: Exit::watch(child),
        })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file that holds what it wrote.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        *self
            .exit
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to the process, if it still runs.
    pub fn signal(&self, signal: Signal) {
        let ended = self
            .exit
            .status
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if ended.is_none() {
            let _ = self.id().map(|pid| kill_process(pid, signal));
        }
    }

    /// Kills the process and its group with SIGKILL and waits for its end.
    pub fn kill(&self) {
        {
            let ended = self
                .exit
                .status
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if ended.is_none() {
                // The group may not exist yet: setpriv is its leader from the start, but be sure of the process itself.
                let _ = self.id().map(|pid| {
                    (
                        kill_process_group(pid, Signal::KILL),
                        kill_process(pid, Signal::KILL),
                    )
                });
            }
        }
        self.exit.wait(DROP_DEADLINE);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it still runs after `timeout`.
    pub async fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        crate::eventually(timeout, &format!("{} to end", self.name), async || {
            self.status()
        })
        .await
    }

    /// Sends `signal` once the process listens for it, which it does not from its first moment on: before, it would not
    /// stop, but die of it. Then waits for the end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it does not listen, or still runs, after `timeout`.
    pub async fn stop(&self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to listen for {signal:?}", self.name);
        let may_be_sent = async || self.status().is_some() || self.listens(signal);
        crate::eventually(timeout, &what, may_be_sent).await?;
        self.signal(signal);
        self.wait(timeout).await
    }

    /// Whether it has a handler for the signal or a thread that waits for it, as the kernel knows (proc(5)). Nobody can
    /// listen for SIGKILL.
    fn listens(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.unwrap_or_default();
        let has = |set: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(set));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
        };
        signal == Signal::KILL || has("SigCgt:") || has("SigBlk:")
    }

    /// An error with the end of the log when it has ended, nothing while it runs.
    ///
    /// # Errors
    /// [`Error::Exited`] when it has ended.
    pub fn check_running(&self) -> Result<()> {
        let Some(status) = self.status() else {
            return Ok(());
        };
        let (name, log, tail) = (self.name.clone(), self.log.clone(), self.log_tail());
        Err(Error::Exited {
            name,
            status,
            log,
            tail,
        })
    }

    /// The last few thousand bytes of the log.
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|e| format!("(the log cannot be read: {e})"))
    }

    /// Signals, waits shortly, then kills: for drops, which cannot await.
    pub(crate) fn end_now(&self, signal: Signal) {
        self.signal(signal);
        self.exit.wait(DROP_DEADLINE);
        self.kill();
    }

    fn id(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

// === impl Exit ===

impl Exit {
    /// Reaps the child on a thread of its own.
    fn watch(mut child: Child) -> Arc<Self> {
        let exit = Arc::new(Self::default());
        let seen = Arc::clone(&exit);
        std::thread::spawn(move || {
            let status = child.wait().unwrap_or_default();
            *seen.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            seen.changed.notify_all();
        });
        exit
    }

    fn wait(&self, timeout: Duration) {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self
            .changed
            .wait_timeout_while(status, timeout, |s| s.is_none());
    }
}

/// Runs a helper program to its end, as `user` when given.
pub(crate) async fn run(user: Option<&str>, command: &Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(wrap(user, None, command));
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.map_err(Error::io(format!("running {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Failed {
        program,
        status: output.status,
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

/// The command behind `setpriv`, which sets what is asked and then becomes the command.
fn wrap(user: Option<&str>, death_signal: Option<&str>, command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    if let Some(user) = user {
        wrapped.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    if let Some(signal) = death_signal {
        wrapped.args(["--pdeathsig", signal]);
    }
    wrapped
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    wrapped.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
    wrapped
}

/// Spawns on a thread that lives as long as the process: the kernel's signal comes at the death of the *thread* that
/// forked, and a test's thread ends with the test.
fn spawn_for_life(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Spawn>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Spawn>();
        std::thread::spawn(move || {
            for Spawn { mut command, reply } in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = || std::io::Error::other("the spawning thread is gone");
    let sent = spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Spawn { command, reply });
    sent.map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a process works in `directory`: what tells a server's orphans.
pub(crate) fn any_with_working_directory(directory: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return false;
    };
    processes
        .flatten()
        .any(|p| std::fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd == directory))
}
