//! What is printed, and what do programs read?

use super::{PLAIN, show};
use crate::{
    api::{Circuit, Connection, Request, Service, Status, fake::Served, sample},
    cli::{
        args::{Color, Format},
        execute::{Screen, Shown},
        output::Style,
    },
};

/// What `line` prints when asked of a daemon.
async fn printed(served: &Served, line: &str) -> String {
    let (request, format, _) = show(line);
    let screen = Screen::new(served.client(), request, format, PLAIN);
    let shown = screen.ask().await.unwrap();
    screen.text(&shown).unwrap()
}

#[tokio::test]
async fn json_is_what_the_daemon_said() {
    let served = Served::start().await;
    let text = printed(&served, "mesh services checkout -o json").await;
    assert!(text.starts_with("[\n  {\n    \"name\": \"checkout\",\n    \"addresses\": [\n"), "{text}");
    let back: Vec<Service> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, sample::services()[..1]);
    let status: Status = serde_json::from_str(&printed(&served, "mesh status -o json").await).unwrap();
    assert_eq!(status, sample::status());
    let text = printed(&served, "mesh connections --limit 1 -o json").await;
    let back: Vec<Connection> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, sample::connections()[..1]);
    assert!(!text.contains("per_s"), "rates are of a watch: {text}");
    let back: Vec<Circuit> = serde_json::from_str(&printed(&served, "mesh circuit -o json").await).unwrap();
    assert_eq!(back, sample::circuits());
    for line in ["endpoints checkout", "explain 10.0.0.1:80", "config dump"] {
        let text = printed(&served, &format!("mesh {line} -o json")).await;
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}

#[tokio::test]
async fn yaml_is_the_same_in_other_clothes() {
    let served = Served::start().await;
    let back: Vec<Service> = serde_saphyr::from_str(&printed(&served, "mesh services -o yaml").await).unwrap();
    assert_eq!(back, sample::services());
    let back: Status = serde_saphyr::from_str(&printed(&served, "mesh status -o yaml").await).unwrap();
    assert_eq!(back, sample::status());
    assert_eq!(
        printed(&served, "mesh config dump").await,
        "\
node:
  name: node-a
  zone: \"\"
admin:
  listen: 127.0.0.1:9901
  socket: /run/mesh/admin.sock
services:
- name: checkout
  addresses:
  - 10.96.0.10:80
  - \"[fd00::10]:80\"
  endpoints: []
"
    );
}

#[tokio::test]
async fn one_service_is_shown_with_its_endpoints() {
    let served = Served::start().await;
    let text = printed(&served, "mesh services checkout").await;
    assert!(text.contains("\nPolicy        round_robin\n") && text.contains("\n10.0.1.5:8080 "), "{text}");
}

#[tokio::test]
async fn an_empty_listing_says_so_beside_the_output() {
    let served = Served::start().await;
    let screen = |format| Screen::new(served.client(), Request::Services { name: None }, format, PLAIN);
    let nothing = Shown::Services(vec![]);
    assert_eq!(screen(Format::Table).text(&nothing).unwrap(), "");
    assert_eq!(screen(Format::Table).empty(&nothing), Some("no services"));
    assert_eq!(screen(Format::Json).text(&nothing).unwrap(), "[]\n");
    assert_eq!(screen(Format::Yaml).text(&nothing).unwrap(), "[]\n");
    assert_eq!(screen(Format::Json).empty(&nothing), None);
}

#[test]
fn colour_is_as_it_was_asked_for() {
    assert!(Style::for_stdout(Color::Always).color);
    assert!(!Style::for_stdout(Color::Never).color);
}
