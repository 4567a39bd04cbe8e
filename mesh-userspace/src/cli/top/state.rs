//! What is shown: a function of the looks at the daemon and of the keys pressed. It knows no terminal and no clock.

use super::{
    history::Minute,
    keys::Key,
    latencies::Latencies,
    list::{Browse, List},
    rows::{ConnectionRow, EndpointRates, EndpointRow, ServiceRates, ServiceRow},
    sample::{Endpoints, Sample, Scope, Taken, Wanted},
};
use crate::{
    api::{Connection, Endpoint, Service, Status, Time},
    cli::rates::{Before, Rated, Totals},
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Up to so many endpoints all of them are asked for in every view: what an endpoint does a second is known at once where
/// it is looked at. Beyond, that would be a load worth speaking of.
const FEW: u64 = 2_000;

/// The times between two looks that can be chosen, in seconds. Less than a second would be no faster for the eye.
const INTERVALS: [u64; 6] = [1, 2, 5, 10, 30, 60];
/// The time between two looks where the second is awaited for a first rate, or the daemon is.
const SOON: Duration = Duration::from_secs(1);
/// A longer filter than this is no filter, but something pasted by mistake.
const LONGEST_FILTER: usize = 100;

/// What a screen is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Services,
    Endpoints,
    Connections,
}

impl View {
    /// All of them, in the order of their keys.
    pub(super) const ALL: [Self; 3] = [Self::Services, Self::Endpoints, Self::Connections];

    const fn next(self) -> Self {
        match self {
            Self::Services => Self::Endpoints,
            Self::Endpoints => Self::Connections,
            Self::Connections => Self::Services,
        }
    }

    const fn previous(self) -> Self {
        self.next().next()
    }
}

/// What a key asks of whoever owns the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// To show the state.
    Show,
    /// To show it on a screen that something else may have written on.
    Redraw,
    /// To give the terminal back for a while.
    Suspend,
    /// To end.
    Quit,
}

/// Why there is nothing new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// When the daemon failed to answer for the first time.
    pub(super) since: Time,
    /// When it did so last.
    pub(super) now: Time,
    /// How.
    pub(super) why: String,
}

/// Everything that is shown.
pub(super) struct State {
    /// The zero of the minutes.
    start: Instant,
    pub(super) view: View,
    pub(super) scope: Scope,
    pub(super) services: List<ServiceRow>,
    pub(super) endpoints: List<EndpointRow>,
    pub(super) connections: List<ConnectionRow>,
    /// Why there are no connections to show.
    pub(super) no_connections: Option<String>,
    pub(super) status: Option<Status>,
    /// When the daemon last answered.
    pub(super) answered: Option<Time>,
    pub(super) failure: Option<Failure>,
    /// How long what is asked of services takes, as far as it is known.
    pub(super) latencies: Latencies,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// The filter before the one that is being typed.
    typing: Option<String>,
    /// What the last look brought: those of the scope are in the list.
    all_endpoints: Vec<EndpointRow>,
    /// When services were last seen.
    looked: Option<Instant>,
    service_totals: Totals<String, 5>,
    endpoint_totals: Totals<(String, SocketAddr), 6>,
    connection_totals: Before,
    /// Looks at what is shown without anything forgotten between them: the second one has rates.
    looks: u32,
}

impl State {
    /// Before the first look.
    pub(super) fn new(start: Instant, interval: Duration) -> Self {
        Self {
            start,
            view: View::Services,
            scope: Scope::default(),
            services: List::sorted_by("NAME"),
            endpoints: List::sorted_by("SERVICE"),
            connections: List::sorted_by("RECV/S"),
            no_connections: None,
            status: None,
            answered: None,
            failure: None,
            latencies: Latencies::new(),
            interval,
            paused: false,
            help: false,
            typing: None,
            all_endpoints: Vec::new(),
            looked: None,
            service_totals: Totals::default(),
            endpoint_totals: Totals::default(),
            connection_totals: Before::default(),
            looks: 0,
        }
    }

    /// What the next look is to bring.
    pub(super) fn wanted(&self) -> Wanted {
        let few = self.status.as_ref().is_some_and(|status| status.endpoints <= FEW);
        let endpoints = match (self.view, &self.scope.service) {
            _ if few => Endpoints::All,
            (View::Endpoints, None) => Endpoints::All,
            (View::Endpoints, Some(service)) => Endpoints::Of(service.clone()),
            (View::Services | View::Connections, _) => Endpoints::None,
        };
        let connections = (self.view == View::Connections).then(|| self.scope.clone());
        Wanted { endpoints, connections }
    }

    /// How long to wait between two looks.
    pub(super) fn pause(&self) -> Duration {
        if self.failure.is_some() || self.looks < 2 { self.interval.min(SOON) } else { self.interval }
    }

    /// Whether nothing has come yet of what is shown.
    pub(super) const fn is_waiting(&self) -> bool {
        self.looks == 0
    }

    /// Whether somebody types words and not commands.
    pub(super) const fn is_typing(&self) -> bool {
        self.typing.is_some()
    }

    /// The list that is shown.
    pub(super) fn list(&self) -> &dyn Browse {
        match self.view {
            View::Services => &self.services,
            View::Endpoints => &self.endpoints,
            View::Connections => &self.connections,
        }
    }

    /// The list that is shown.
    pub(super) fn list_mut(&mut self) -> &mut dyn Browse {
        match self.view {
            View::Services => &mut self.services,
            View::Endpoints => &mut self.endpoints,
            View::Connections => &mut self.connections,
        }
    }

    /// The daemon did not answer at `now`.
    pub(super) fn failed(&mut self, why: String, now: Time) {
        let since = self.failure.as_ref().map_or(now, |failure| failure.since);
        self.failure = Some(Failure { since, now, why });
    }

    /// The daemon answered at `now`.
    pub(super) fn answered(&mut self, sample: Sample, now: Time) {
        let Sample { whole, endpoints, connections } = sample;
        self.failure = None;
        self.looks = self.looks.saturating_add(1);
        if let Some((status, services)) = whole {
            self.answered = Some(now);
            self.status = Some(status);
            self.take_services(services);
        }
        match endpoints {
            Some(endpoints) => self.take_endpoints(endpoints),
            // A rate over the time in which nobody looked would be a surprise.
            None => self.endpoint_totals = Totals::default(),
        }
        match connections {
            Some(connections) => self.take_connections(connections),
            None => self.connection_totals = Before::default(),
        }
    }

    fn take_services(&mut self, services: Taken<Service>) {
        let Taken { at, rows } = services;
        let totals = |service: &Service| (service.name.clone(), ServiceRates::totals(service));
        let rates = self.service_totals.rates(&rows, at, totals, |_, _| false);
        let now = at.saturating_duration_since(self.start);
        let before = self.looked.replace(at).map(|before| before.saturating_duration_since(self.start));
        // Those of services that are gone are forgotten.
        let minutes = self.services.rows().iter().map(|row| (row.service.name.clone(), row.minute.clone()));
        let mut minutes: HashMap<String, Minute> = minutes.collect();
        let row = |(service, rates): (Service, Option<[f64; 5]>)| {
            let rates = rates.map(ServiceRates::from);
            let mut minute = minutes.remove(&service.name).unwrap_or_default();
            if let (Some(rates), Some(before)) = (&rates, before) {
                minute.record(before, now, rates.activity(&service));
            }
            let latency = self.latencies.get(&service.name).copied().unwrap_or_default();
            ServiceRow { rates, latency, minute, now, service }
        };
        self.services.replace(rows.into_iter().zip(rates).map(row).collect());
    }

    fn take_endpoints(&mut self, endpoints: Taken<Endpoint>) {
        let Taken { at, rows } = endpoints;
        let totals =
            |endpoint: &Endpoint| ((endpoint.service.clone(), endpoint.address), EndpointRates::totals(endpoint));
        let rates = self.endpoint_totals.rates(&rows, at, totals, |_, _| false);
        let row =
            |(endpoint, rates): (Endpoint, Option<[f64; 6]>)| EndpointRow { endpoint, rates: rates.map(Into::into) };
        self.all_endpoints = rows.into_iter().zip(rates).map(row).collect();
        self.show_endpoints();
    }

    fn show_endpoints(&mut self) {
        let service = self.scope.service.as_ref();
        let rows = self.all_endpoints.iter().filter(|row| service.is_none_or(|name| row.endpoint.service == *name));
        self.endpoints.replace(rows.cloned().collect());
    }

    fn take_connections(&mut self, connections: Result<Taken<Connection>, String>) {
        let (rows, why) = match connections {
            Ok(Taken { at, rows }) => {
                let mut rated: Vec<Rated> = rows.into_iter().map(Rated::from).collect();
                self.connection_totals.rate(&mut rated, at);
                (rated.into_iter().map(ConnectionRow::from).collect(), None)
            }
            Err(why) => (Vec::new(), Some(why)),
        };
        self.connections.replace(rows);
        self.no_connections = why;
    }

    /// A key was pressed.
    pub(super) fn press(&mut self, key: Key) -> Effect {
        match key {
            Key::Interrupt => return Effect::Quit,
            Key::Suspend => return Effect::Suspend,
            Key::Redraw => return Effect::Redraw,
            _ => {}
        }
        if self.help {
            self.help = false;
            return Effect::Show;
        }
        if let Some(before) = self.typing.take() {
            self.typing = self.edit(key, before);
            return Effect::Show;
        }
        match key {
            Key::Char('q') => return Effect::Quit,
            Key::Char('?') => self.help = true,
            Key::Char('1') => self.go(View::Services),
            Key::Char('2') => self.go(View::Endpoints),
            Key::Char('3') => self.go(View::Connections),
            Key::Tab => self.go(self.view.next()),
            Key::BackTab => self.go(self.view.previous()),
            Key::Enter => self.enter(),
            Key::Escape => self.leave(),
            Key::Char('/') => self.typing = Some(self.list().filtered().to_owned()),
            Key::Char(' ' | 'p') => self.paused = !self.paused,
            Key::Char('+' | '=') => self.set_interval(true),
            Key::Char('-') => self.set_interval(false),
            Key::Char('<') | Key::Left => self.list_mut().sort_next(false),
            Key::Char('>') | Key::Right => self.list_mut().sort_next(true),
            Key::Char('r') => self.list_mut().reverse(),
            Key::Up | Key::Char('k') => self.list_mut().step(-1),
            Key::Down | Key::Char('j') => self.list_mut().step(1),
            Key::PageUp => self.list_mut().turn(false),
            Key::PageDown => self.list_mut().turn(true),
            Key::Home | Key::Char('g') => self.list_mut().first(),
            Key::End | Key::Char('G') => self.list_mut().last(),
            _ => {}
        }
        Effect::Show
    }

    /// A key pressed while a filter is typed; gives the filter before, unless that is over.
    fn edit(&mut self, key: Key, before: String) -> Option<String> {
        let mut text = self.list().filtered().to_owned();
        match key {
            Key::Enter => return None,
            Key::Escape => {
                self.list_mut().filter(&before);
                return None;
            }
            Key::Backspace => drop(text.pop()),
            Key::Erase => text.clear(),
            Key::Char(character) if text.chars().count() < LONGEST_FILTER => text.push(character),
            // The arrows move about among what is left.
            Key::Up => self.list_mut().step(-1),
            Key::Down => self.list_mut().step(1),
            _ => {}
        }
        self.list_mut().filter(&text);
        Some(before)
    }

    /// Another view. Services are always all of them; further down, what is looked at stays.
    fn go(&mut self, view: View) {
        let scope = match view {
            View::Services => Scope::default(),
            View::Endpoints => Scope { endpoint: None, ..self.scope.clone() },
            View::Connections => self.scope.clone(),
        };
        self.look_at(view, scope);
    }

    /// Down, to what belongs to the selected row.
    fn enter(&mut self) {
        match self.view {
            View::Services => {
                if let Some(row) = self.services.selected() {
                    let scope = Scope { service: Some(row.service.name.clone()), endpoint: None };
                    self.look_at(View::Endpoints, scope);
                }
            }
            View::Endpoints => {
                if let Some(row) = self.endpoints.selected() {
                    let (service, endpoint) = (row.endpoint.service.clone(), row.endpoint.address);
                    self.look_at(View::Connections, Scope { service: Some(service), endpoint: Some(endpoint) });
                }
            }
            View::Connections => {}
        }
    }

    /// Away with a filter; else up, to where one came from.
    fn leave(&mut self) {
        if !self.list().filtered().is_empty() {
            self.list_mut().filter("");
            return;
        }
        match self.view {
            View::Services => {}
            View::Connections if self.scope.service.is_some() => self.go(View::Endpoints),
            View::Endpoints | View::Connections => self.go(View::Services),
        }
    }

    fn look_at(&mut self, view: View, scope: Scope) {
        if view == self.view && scope == self.scope {
            return;
        }
        if view == View::Connections || scope != self.scope {
            // Those of something else, or of long ago, would be shown until the next look.
            self.connections.replace(Vec::new());
            self.connection_totals = Before::default();
            self.no_connections = None;
        }
        if scope != self.scope {
            self.connections.reset();
        }
        let other_service = scope.service != self.scope.service;
        (self.view, self.scope) = (view, scope);
        if other_service {
            self.endpoints.reset();
            self.show_endpoints();
        }
        self.looks = 0;
    }

    fn set_interval(&mut self, longer: bool) {
        let seconds = self.interval.as_secs();
        let other = if longer {
            INTERVALS.into_iter().find(|other| *other > seconds)
        } else {
            INTERVALS.into_iter().rev().find(|other| *other < seconds)
        };
        if let Some(other) = other {
            self.interval = Duration::from_secs(other);
        }
    }
}
