//! The terminal: taken over, drawn on, listened to, and given back whatever happens.

use super::keys::Key;
use nix::sys::signal::{Signal as UnixSignal, raise};
use ratatui::{
    DefaultTerminal, Frame,
    backend::Backend,
    crossterm::{
        event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
        execute,
        style::force_color_output,
        terminal::{EnterAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use std::{
    env,
    io::{self, IsTerminal},
    thread,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

/// Why there can be no full screen, if there cannot.
pub(super) fn refuse() -> Option<String> {
    let instead = "`mesh services --watch` prints a table again and again, `mesh services -o json` is for programs";
    if !io::stdout().is_terminal() {
        return Some(format!("top: standard output is not a terminal; {instead}"));
    }
    match env::var("TERM") {
        Ok(term) if !term.is_empty() && term != "dumb" => None,
        Ok(term) if term == "dumb" => {
            Some(format!("top: TERM=dumb, a terminal that cannot move its cursor; {instead}"))
        }
        _ => Some(format!("top: TERM does not say what terminal this is; {instead}")),
    }
}

/// The whole screen. Dropped, it is as it was before; so it is before a panic says why.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the screen.
    ///
    /// # Errors
    /// Where the terminal does not go along.
    pub(super) fn take(color: bool) -> io::Result<Self> {
        // Whether there is colour has been decided, from more than the library looks at.
        force_color_output(color);
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(e) => {
                // It may be half done.
                let _ = ratatui::try_restore();
                Err(e)
            }
        }
    }

    /// Draws a frame: what is different from the one before goes to the terminal.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(frame).map(drop)
    }

    /// Lets the next frame be drawn as a whole.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn forget(&mut self) -> io::Result<()> {
        // Not the terminal's own `clear`: that asks where the cursor is, and the answer would go to the thread that reads.
        self.0.backend_mut().clear()?;
        self.0.swap_buffers();
        Ok(())
    }

    /// Gives the terminal back and stops this process, as Ctrl-Z does elsewhere; takes it again when the process goes on,
    /// which is at once where nobody could let it.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        self.0.show_cursor()?;
        ratatui::try_restore()?;
        raise(UnixSignal::SIGTSTP)?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        self.resume()
    }

    /// Sets the terminal as it has to be and forgets what is on it: while this process was stopped, a shell had it.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        // The library believes that what it set is set still.
        disable_raw_mode()?;
        enable_raw_mode()?;
        self.forget()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// What comes from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A key.
    Key(Key),
    /// It has another size now.
    Resized,
}

/// What comes from the terminal from now on; it ends where the terminal does.
///
/// A thread reads it, and may spin or hang where a terminal has gone without a word: nothing waits for that thread.
pub(super) fn input() -> UnboundedReceiver<Input> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(input) = understand(&event)
                && sender.send(input).is_err()
            {
                break;
            }
        }
    });
    receiver
}

fn understand(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(KeyEvent { kind: KeyEventKind::Press | KeyEventKind::Repeat, code, modifiers, .. }) => {
            key(*code, *modifiers).map(Input::Key)
        }
        _ => None,
    }
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    let control = modifiers.contains(KeyModifiers::CONTROL);
    if modifiers.intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META) {
        return None;
    }
    Some(match code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('l') if control => Key::Redraw,
        KeyCode::Char('u') if control => Key::Erase,
        KeyCode::Char('z') if control => Key::Suspend,
        KeyCode::Char('h') if control => Key::Backspace,
        KeyCode::Char(character) if !control => Key::Char(character),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

/// What this process is told by signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To end.
    End,
    /// That it goes on after a stop.
    GoOn,
}

/// Signals, which from now on do nothing by themselves: the terminal is given back first.
pub(super) struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    go_on: Signal,
}

impl Signals {
    /// Listens to them.
    ///
    /// # Errors
    /// Where the system does not let it.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            go_on: signal(SignalKind::from_raw(UnixSignal::SIGCONT as i32))?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hang_up.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
            _ = self.quit.recv() => Told::End,
            _ = self.go_on.recv() => Told::GoOn,
        }
    }
}
