//! The terminal while something is drawn on it.
//!
//! - It is given back by drop and before a panic is shown; a signal drops it.

use std::io;

use ratatui::DefaultTerminal;

use super::draw::draw;
use super::view::View;

/// A terminal that is drawn on.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

// === impl Screen ===

impl Screen {
    /// Takes the terminal: its other screen, and each key as it is pressed.
    pub(super) fn open() -> io::Result<Self> {
        let opened = ratatui::try_init().map(|terminal| Self { terminal });
        if opened.is_err() {
            give_back();
        }
        opened
    }

    pub(super) fn draw(&mut self, view: &View) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, view)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // A terminal that is gone needs nothing.
    ratatui::try_restore().unwrap_or_default();
}
