//! Parts of a kernel that are files of their own: which the tests need, and in which order they are loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::kernels::Kernel;

/// Virtual cables between network namespaces and bridges that join them, and what lists sockets where iterators are refused.
const WANTED: [&str; 4] = ["veth", "bridge", "tcp_diag", "udp_diag"];

/// Content of the wanted modules of a kernel and of what they need, in the order to load. What is no file is built in,
/// or the test that needs it will say so.
pub(super) fn of(kernel: &Kernel) -> Result<Vec<Vec<u8>>, String> {
    let Some(directory) = &kernel.modules else { return Ok(Vec::new()) };
    let mut files = BTreeMap::new();
    index(directory, &mut files);
    let mut contents = BTreeMap::new();
    let order = order(&WANTED, |name| {
        let Some(file) = files.get(name) else { return Ok(Vec::new()) };
        let content = read(file)?;
        let needs = needs(&content);
        contents.insert(name.to_owned(), content);
        Ok(needs)
    })?;
    Ok(order.iter().filter_map(|name| contents.remove(name)).collect())
}

/// All modules below a directory, by name. In names `-` and `_` are the same.
fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.is_symlink() {
            index(&path, files);
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.split_once(".ko")) {
            files.insert(name.0.replace('-', "_"), path.clone());
        }
    }
}

/// `wanted` and all that they need, needs first.
fn order(wanted: &[&str], mut needs: impl FnMut(&str) -> Result<Vec<String>, String>) -> Result<Vec<String>, String> {
    let mut order: Vec<String> = Vec::new();
    // A name comes a second time when what it needs is in the order.
    let mut open: Vec<(String, bool)> = wanted.iter().rev().map(|name| ((*name).to_owned(), false)).collect();
    let mut seen = std::collections::BTreeSet::new();
    while let Some((name, ready)) = open.pop() {
        if ready {
            order.push(name);
        } else if seen.insert(name.clone()) {
            let needed = needs(&name)?;
            open.push((name, true));
            open.extend(needed.into_iter().rev().map(|needed| (needed, false)));
        }
    }
    Ok(order)
}

/// The names that a module says it needs: `depends=a,b` between zero bytes.
fn needs(content: &[u8]) -> Vec<String> {
    let says = b"\0depends=";
    let Some(at) = content.windows(says.len()).position(|window| window == says) else { return Vec::new() };
    let list = content[at + says.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The module in a file, unpacked if it is packed.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let unpack = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).map_err(|error| format!("{}: {error}", file.display())),
    };
    let mut command = Command::new(unpack);
    let output = command.args(["-dc"]).arg(file).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{unpack}, which unpacks {}: {error}", file.display()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{unpack} {}: {}", file.display(), output.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let needs = |name: &str| {
            let list: &[&str] = match name {
                "tcp_diag" | "udp_diag" => &["inet_diag"],
                "inet_diag" => &["base"],
                _ => &[],
            };
            Ok(list.iter().map(|name| (*name).to_owned()).collect())
        };
        let order = order(&["veth", "tcp_diag", "udp_diag"], needs).unwrap();
        assert_eq!(order, ["veth", "base", "inet_diag", "tcp_diag", "udp_diag"]);
    }

    #[test]
    fn modules_that_need_one_another_end() {
        let order = order(&["a"], |name| Ok(vec![if name == "a" { "b" } else { "a" }.to_owned()])).unwrap();
        assert_eq!(order, ["b", "a"]);
    }

    #[test]
    fn a_module_says_what_it_needs() {
        assert_eq!(
            needs(b"ELF\0license=GPL\0depends=inet_diag,udp-tunnel\0vermagic=6.1\0"),
            ["inet_diag", "udp_tunnel"]
        );
        assert!(needs(b"ELF\0depends=\0").is_empty());
        assert!(needs(b"").is_empty());
    }
}
