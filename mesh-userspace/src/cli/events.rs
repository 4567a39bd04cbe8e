//! What changes about a service, one line an event, until Ctrl-C.

use super::{
    execute::failed,
    output::{self, complain, note, print},
};
use crate::api::{Client, ClientError, Received};
use serde_json::Value;
use std::{process::ExitCode, time::Duration};
use tokio::time::sleep;

/// A daemon that is away is asked so often whether it is back.
const BACK: Duration = Duration::from_secs(1);

/// Prints events of a service. A daemon that goes away after the first one is waited for, and nothing is missed or printed
/// twice as long as it remembers; else there is a new snapshot.
pub(super) async fn events(client: &Client, service: &str) -> Result<(), ExitCode> {
    tokio::select! {
        result = follow(client, service) => result,
        // Being interrupted is how this ends well.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn follow(client: &Client, service: &str) -> Result<(), ExitCode> {
    let mut last = None;
    let mut away = false;
    loop {
        let error = match client.watch(service, last).await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(event) => {
                        away = false;
                        last = event.id.or(last);
                        print(&line(&event)?)?;
                    }
                    Err(e) => break e,
                }
            },
            Err(e) => e,
        };
        if last.is_none() || !(error.is_unreachable() || is_temporary(&error)) {
            return Err(failed(&error));
        }
        if !away {
            note(&format!("mesh: {error}; waiting for it"));
        }
        away = true;
        sleep(BACK).await;
    }
}

/// A service may be back before long: its daemon has just started, or its last instance is late.
fn is_temporary(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { kind, .. } if kind == "unavailable" || kind == "not_found")
}

fn line(event: &Received) -> Result<String, ExitCode> {
    #[derive(serde::Serialize)]
    struct Line<'a> {
        event: &'a str,
        id: Option<u64>,
        data: Value,
    }
    let unprintable = |e: String| {
        complain(&format!("an event cannot be printed: {e}"));
        ExitCode::FAILURE
    };
    let data: Value = serde_json::from_str(&event.data).map_err(|e| unprintable(e.to_string()))?;
    output::line(&Line { event: &event.kind, id: event.id, data }).map_err(unprintable)
}
