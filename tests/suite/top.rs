//! `walferry top` in a terminal of its own, and what it leaves behind.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;
use walferry_harness::eventually;

use crate::admin::listening;
use crate::daemon::{PATIENCE, Pipeline};
use crate::site::said;

/// To the terminal's other screen, and back.
const SCREENS: [&str; 2] = ["\x1b[?1049h", "\x1b[?1049l"];

/// A shell in a pseudo terminal: what is typed, and all that was shown.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    directory: TempDir,
}

// === impl Terminal ===

impl Terminal {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut script = Command::new("script");
        script.args(["--quiet", "--flush", "--command", "sh"]);
        let mut script = script
            .arg(directory.path().join("shown"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let keys = script.stdin.take().unwrap();
        Self {
            script,
            keys,
            directory,
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn shown(&self) -> String {
        let shown = std::fs::read(self.directory.path().join("shown"));
        String::from_utf8_lossy(&shown.unwrap_or_default()).into_owned()
    }

    /// Waits until `text` was shown so often.
    async fn shows(&self, text: &str, times: usize) {
        let attempt = async || {
            let shown = self.shown();
            let is_there = shown.matches(text).count() >= times;
            is_there.then_some(()).ok_or(shown)
        };
        let what = format!("the terminal to show {text:?}");
        eventually(PATIENCE, &what, attempt).await.unwrap();
    }

    /// What the file of a name holds, once it is there.
    async fn file(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        let written = async || {
            std::fs::read_to_string(&path)
                .ok()
                .filter(|it| it.ends_with('\n'))
        };
        eventually(PATIENCE, name, written).await.unwrap()
    }

    /// Types a line of shell that works in the terminal's directory.
    fn line(&mut self, line: &str) {
        let directory = self.directory.path().display();
        let line = format!("(cd {directory}; {line})\n");
        self.press(&line);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its end hangs up on whatever runs in the terminal.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// A line that runs `walferry top` and says how it ended.
fn top(pipeline: &Pipeline) -> String {
    let (binary, config) = (env!("CARGO_BIN_EXE_walferry"), pipeline.config());
    let config = config.display();
    format!("sh -c 'echo $$ > pid; exec {binary} top --config {config}'; echo left-with-$?")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_shows_the_tables_and_is_as_before_after_a_key_or_a_signal() {
    let (pipeline, port) = listening("top").await;
    let mut terminal = Terminal::open();
    terminal.line("stty rows 40 cols 120; stty -g > before");
    let before = terminal.file("before").await;

    terminal.line(&top(&pipeline));
    let nobody = format!("no daemon answers on 127.0.0.1:{port}");
    terminal.shows(&nobody, 1).await;
    let daemon = pipeline.start();
    let insert = pipeline.sql.batch_execute("insert into t values (1, 'x')");
    insert.await.unwrap();
    terminal.shows("public.t", 1).await;
    terminal.press("q");
    terminal.shows("left-with-0", 1).await;
    terminal.line("stty -g > after-a-key");
    assert_eq!(terminal.file("after-a-key").await, before);

    std::fs::remove_file(terminal.directory.path().join("pid")).unwrap();
    terminal.line(&top(&pipeline));
    terminal.shows(SCREENS[0], 2).await;
    let pid = terminal.file("pid").await;
    let mut kill = Command::new("kill");
    kill.args(["-TERM", pid.trim()]);
    assert_eq!(said(kill).await.code, Some(0));
    terminal.shows("left-with-0", 2).await;
    terminal.line("stty -g > after-a-signal");
    assert_eq!(terminal.file("after-a-signal").await, before);

    let shown = terminal.shown();
    for screen in SCREENS {
        assert_eq!(shown.matches(screen).count(), 2, "{screen:?} in {shown:?}");
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_top_names_what_shows_the_same() {
    let (pipeline, _) = listening("piped").await;
    for arguments in [&["top"][..], &["top", "--json"]] {
        let said = said(pipeline.command(arguments)).await;
        assert_eq!(said.code, Some(2), "{}", said.err);
        let named = said.err.contains("`walferry status --watch`");
        assert!(named, "{}", said.err);
        assert_eq!(said.out, "");
    }
}
