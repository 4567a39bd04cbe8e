//! `mesh top`: services, endpoints and connections, live on the whole screen.
//!
//! [`sample`] asks the daemon, [`latencies`] hears what it tells by itself, [`state`] makes of both and of the keys what is to
//! be shown, [`view`] draws that on a buffer, and [`terminal`] owns the terminal. Only here do they meet.

mod column;
mod header;
mod history;
mod keys;
mod latencies;
mod list;
mod paint;
mod rows;
mod sample;
mod state;
mod terminal;
mod text;
mod view;

#[cfg(test)]
mod tests;

use super::{
    execute::failed,
    output::{Style, complain},
};
use crate::api::{Client, ClientError, Time};
use futures_util::future::{LocalBoxFuture, OptionFuture};
use latencies::Follower;
use sample::{Sample, Wanted, look};
use state::{Effect, State};
use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};
use terminal::{Input, Screen, Signals, Told};
use tokio::time::sleep_until;

/// How long a daemon that is alive may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// However often the operator wants to look, a daemon that answers is left alone for so many times as long as that took.
const BREATHER: u32 = 4;

/// Wrong usage.
const USAGE: u8 = 2;

/// Shows the daemon every `interval` until the operator has seen enough.
pub(super) async fn top(client: &Client, interval: Duration, style: Style) -> Result<(), ExitCode> {
    if let Some(why) = terminal::refuse() {
        complain(&why);
        return Err(ExitCode::from(USAGE));
    }
    let client = client.clone().with_patience(PATIENCE);
    let mut state = State::new(Instant::now(), interval);
    // Without a daemon there is nothing to show; one that goes away later is waited for.
    let sample = look(&client, &state.wanted(), true).await.map_err(|e| failed(&e))?;
    state.answered(sample, Time::now());
    run(&client, &mut state, style).await.map_err(|e| {
        complain(&format!("top: the terminal: {e}"));
        ExitCode::FAILURE
    })
}

type Looking<'a> = LocalBoxFuture<'a, Result<Sample, ClientError>>;

async fn run(client: &Client, state: &mut State, style: Style) -> io::Result<()> {
    // First, lest a signal ends this while the screen is taken.
    let mut signals = Signals::new()?;
    let mut screen = Screen::take(style.color)?;
    let mut input = terminal::input();
    let mut looking: Option<Looking<'_>> = None;
    let mut at_everything = false;
    let mut asked = Instant::now();
    // When the last look at everything began, and before when there is to be no other.
    let (mut began, mut rested) = (asked, asked);
    let mut changed = true;
    let mut follower = None;
    loop {
        if state.paused {
            follower = None;
        } else if follower.is_none() {
            follower = Some(Follower::start(client));
        }
        if std::mem::replace(&mut changed, true) {
            screen.draw(|frame| view::render(state, style, frame.area(), frame.buffer_mut()))?;
        }
        let wanted = state.wanted();
        let idle = looking.is_none() && !state.paused;
        let next = (began + state.pause()).max(rested);
        tokio::select! {
            told = signals.next() => match told {
                Told::End => return Ok(()),
                Told::GoOn => screen.resume()?,
            },
            received = input.recv() => {
                let first = received.ok_or_else(|| io::Error::other("nothing can be read from it"))?;
                // Keys that came at once, from a paste or over a slow line, are one frame.
                let more = std::iter::from_fn(|| input.try_recv().ok());
                for input in std::iter::once(first).chain(more) {
                    let Input::Key(key) = input else { continue };
                    match state.press(key) {
                        Effect::Show => {}
                        Effect::Redraw => screen.forget()?,
                        Effect::Suspend => screen.suspend()?,
                        Effect::Quit => return Ok(()),
                    }
                }
            }
            Some(answer) = OptionFuture::from(looking.as_mut()) => {
                looking = None;
                match answer {
                    Ok(sample) => {
                        rested = Instant::now() + asked.elapsed() * BREATHER;
                        state.latencies = follower.as_ref().map(Follower::latest).unwrap_or_default();
                        state.answered(sample, Time::now());
                    }
                    Err(e) => state.failed(e.to_string(), Time::now()),
                }
            }
            () = sleep_until(next.into()), if idle => {
                (asked, at_everything) = (Instant::now(), true);
                began = asked;
                looking = Some(begin(client, wanted.clone(), at_everything));
                changed = false;
            }
        }
        if state.wanted() != wanted {
            // What is under way is not what is wanted any more. The time for a look at everything is when it is due.
            at_everything &= looking.is_some();
            asked = Instant::now();
            looking = Some(begin(client, state.wanted(), at_everything));
        }
    }
}

fn begin(client: &Client, wanted: Wanted, at_everything: bool) -> Looking<'_> {
    Box::pin(async move { look(client, &wanted, at_everything).await })
}
