//! What a reload may not change.

use super::Config;
use serde_json::Value;

/// Whether a running daemon can go on with `new`: `node`, `admin`, `dataplane` and `proxy` need a restart, and so
/// does the format of the log.
///
/// # Errors
/// One line for each key that needs a restart.
pub fn reload(old: &Config, new: &Config) -> Result<(), Vec<String>> {
    // By way of their serialized form, so that a new key is compared without anyone thinking of it.
    let fixed = |config: &Config| {
        let format = serde_json::json!({ "format": config.telemetry.log.format });
        serde_json::to_value((&config.node, &config.admin, &config.dataplane, &config.proxy, format))
            .unwrap_or_default()
    };
    let (old, new) = (fixed(old), fixed(new));
    let mut changed = Vec::new();
    for (i, section) in ["node", "admin", "dataplane", "proxy", "telemetry.log"].into_iter().enumerate() {
        compare(section, &old[i], &new[i], &mut changed);
    }
    if changed.is_empty() { Ok(()) } else { Err(changed) }
}

fn compare(path: &str, old: &Value, new: &Value, changed: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, old) in old {
                compare(&format!("{path}.{key}"), old, new.get(key).unwrap_or(&Value::Null), changed);
            }
        }
        _ if old == new => {}
        _ => changed.push(format!("{path} needs a restart: running with {old}, the file says {new}")),
    }
}
