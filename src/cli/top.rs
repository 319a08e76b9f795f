//! `walferry top`: what the running daemon says of itself, live in the terminal.
//!
//! - The terminal is as it was before, however this ends.
//! - A daemon that is away is waited for; what it said last stays on the screen.

mod draw;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io;

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt;
use walferry_core::{Fault, Tasks};

use self::screen::Screen;
use self::view::View;
use super::daemon::Daemon;
use super::output::Output;
use super::{CliError, Exit};
use crate::config::Config;
use crate::telemetry::is_coloured;

pub(super) async fn run(config: &Config, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    if output.is_json() || !output.is_terminal() {
        return Err(CliError::NoTerminal);
    }
    let daemon = Daemon::of(config).map_err(Fault::from)?;
    let mut view = View::new(daemon.address(), is_coloured(&io::stdout()));
    let mut looks = daemon.watch(tasks);
    let mut screen = Screen::open().map_err(CliError::Terminal)?;
    let mut events = EventStream::new();
    loop {
        screen.draw(&view).map_err(CliError::Terminal)?;
        tokio::select! {
            biased;
            // 1. keys, and a terminal of another size
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if view.key(key).is_break() => return Ok(Exit::Success),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(CliError::Terminal(error)),
                None => return Ok(Exit::Success),
            },
            // 2. what the daemon says
            look = looks.recv() => match look {
                Some(look) => view.look(look.map_err(Fault::from)?),
                None => return Ok(Exit::Success),
            },
        }
    }
}
