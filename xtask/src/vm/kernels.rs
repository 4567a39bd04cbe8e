//! Kernels of the distribution: which there are, and how one gets here.
//!
//! With the distribution's own tools, so that signatures are checked, and into `target/vm/kernels`: nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{find, run, step};
use crate::setup;

use super::directory;

/// The long-term series that are tested: the oldest we support, and the one of today's distributions.
pub(super) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Kinds of packages, the smallest kernel first. Debian's, then Ubuntu's.
const FLAVOURS: [&str; 4] = ["-cloud-amd64", "-amd64", "-virtual", "-generic"];

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// What it is called in output: `6.1`, or the file's name.
    pub(super) label: String,
    pub(super) image: PathBuf,
    /// What `uname -r` will say.
    pub(super) release: String,
    /// Where its modules are, if they are anywhere.
    pub(super) modules: Option<PathBuf>,
}

/// The kernel that `wanted` names: a series, or the path of an image.
pub(super) fn get(wanted: &str) -> Result<Kernel, String> {
    let path = Path::new(wanted);
    if path.is_file() { given(path) } else { of_series(wanted) }
}

/// What `--list` shows: each series, what is cached of it, and what the distribution offers.
pub(super) fn list() -> String {
    let offered = offered();
    let line = |series: &&str| {
        let cached =
            cached(series).map_or_else(|| "not cached".to_owned(), |kernel| kernel.image.display().to_string());
        let newest = newest(&offered, series).unwrap_or_else(|| "none offered (apt-get update?)".to_owned());
        format!("{series:<6}  {newest:<48}  {cached}\n")
    };
    SERIES.iter().map(line).collect()
}

fn given(image: &Path) -> Result<Kernel, String> {
    let image = image.canonicalize().map_err(|error| format!("{}: {error}", image.display()))?;
    let head = fs::read(&image).map_err(|error| format!("{}: {error}", image.display()))?;
    let release = release(&head).ok_or_else(|| format!("{} is no bzImage of Linux for x86", image.display()))?;
    // As packages lay it out (boot/vmlinuz-* beside lib/modules), else as installed.
    let beside = image.ancestors().nth(2).unwrap_or(Path::new("/")).join("lib/modules").join(&release);
    let places = [beside, Path::new("/lib/modules").join(&release)];
    let modules = places.into_iter().find(|place| place.is_dir());
    Ok(Kernel { label: release.clone(), image, release, modules })
}

/// The newest one that the distribution offers, or one from an earlier time where it cannot be had.
fn of_series(series: &str) -> Result<Kernel, String> {
    if series.starts_with('/') || series.split('.').any(|part| part.parse::<u32>().is_err()) {
        return Err(format!("{series}: neither a kernel's image nor a series like {}", SERIES.join(" or ")));
    }
    let here = cached(series);
    match fetch(series) {
        Ok(kernel) => Ok(kernel),
        Err(reason) => match here {
            Some(kernel) => {
                step(&format!("{reason}; taking {} from an earlier time", kernel.release));
                Ok(kernel)
            }
            None => Err(reason),
        },
    }
}

fn fetch(series: &str) -> Result<Kernel, String> {
    if find("apt-get").is_none() || find("dpkg-deb").is_none() {
        return Err(format!(
            "no apt-get and dpkg-deb here to fetch Linux {series} with: give --kernel the path of one"
        ));
    }
    if newest(&offered(), series).is_some() {
        match fetch_newest(series) {
            Ok(kernel) => return Ok(kernel),
            // Where apt's lists are older than what the mirror still has, it says that the file is not there.
            Err(reason) => step(&reason),
        }
    }
    // On a new machine apt knows no packages at all.
    setup::update_packages()?;
    fetch_newest(series)
}

fn fetch_newest(series: &str) -> Result<Kernel, String> {
    let names = offered();
    let package = newest(&names, series)
        .ok_or_else(|| format!("apt offers no linux-image-{series}*: add a release that has it to apt's sources"))?;
    let into = cache().join(&package);
    if !into.is_dir() {
        // Ubuntu keeps modules apart.
        let modules = package.replacen("linux-image-", "linux-modules-", 1);
        let packages: Vec<&str> =
            [&package, &modules].into_iter().filter(|name| names.contains(name)).map(String::as_str).collect();
        download(&packages, &into)?;
    }
    unpacked(&into, series).ok_or_else(|| format!("{} has no boot/vmlinuz-*", into.display()))
}

/// Downloads packages and unpacks them into a directory, which appears when all is there.
pub(super) fn download(packages: &[&str], into: &Path) -> Result<(), String> {
    // Another run may be at it too.
    let name = into.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = into.with_file_name(format!("{name}.unfinished-{}", std::process::id()));
    let _ = fs::remove_dir_all(&unfinished);
    let made = download_into(packages, &unfinished).and_then(|()| match fs::rename(&unfinished, into) {
        Err(_) if into.is_dir() => Ok(()),
        renamed => renamed.map_err(|error| format!("{}: {error}", into.display())),
    });
    let _ = fs::remove_dir_all(&unfinished);
    made
}

fn download_into(packages: &[&str], unfinished: &Path) -> Result<(), String> {
    fs::create_dir_all(unfinished).map_err(|error| format!("{}: {error}", unfinished.display()))?;
    for package in packages {
        let mut apt = Command::new("apt-get");
        // Root's apt downloads as a user who may not write here, and says so at length.
        apt.args(["download", "-q", "-o", "APT::Sandbox::User=root", package]).current_dir(unfinished);
        run(&format!("fetching {package}"), apt.stdout(Stdio::null()))?;
    }
    let archives = fs::read_dir(unfinished).map_err(|error| error.to_string())?;
    let archives =
        archives.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"));
    for archive in archives.collect::<Vec<_>>() {
        let mut unpack = Command::new("dpkg-deb");
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        run(&format!("unpacking {name}"), unpack.arg("-x").arg(&archive).arg(unfinished))?;
        fs::remove_file(&archive).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn cache() -> PathBuf {
    directory().join("kernels")
}

/// The newest of a series that was fetched before.
fn cached(series: &str) -> Option<Kernel> {
    let entries = fs::read_dir(cache()).ok()?;
    let names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    unpacked(&cache().join(newest(&names, series)?), series)
}

fn unpacked(directory: &Path, series: &str) -> Option<Kernel> {
    let boot = fs::read_dir(directory.join("boot")).ok()?;
    let image = boot
        .flatten()
        .map(|e| e.path())
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))?;
    Some(Kernel { label: series.to_owned(), ..given(&image).ok()? })
}

/// Names of all kernel packages that apt knows.
fn offered() -> Vec<String> {
    let mut apt = Command::new("apt-cache");
    let output = apt.args(["pkgnames", "linux-"]).stderr(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The newest package of a series, of the smallest flavour there is.
fn newest(names: &[String], series: &str) -> Option<String> {
    FLAVOURS.iter().find_map(|flavour| {
        let of_flavour = names.iter().filter_map(|name| {
            let version = name.strip_prefix("linux-image-")?.strip_suffix(flavour)?;
            // `6.1.0-56`, not the package that only asks for it (`6.1`), nor another flavour (`6.1.0-56-rt`).
            let rest = version.strip_prefix(series)?.strip_prefix('.')?;
            let plain = rest.bytes().all(|byte| byte.is_ascii_digit() || b".-+~".contains(&byte) || is_release(rest));
            plain.then(|| (numbers(version), name.clone()))
        });
        of_flavour.max().map(|(_, name)| name)
    })
}

/// Debian writes the release it was built for into the versions of backports: `107+deb12`.
fn is_release(rest: &str) -> bool {
    rest.split_once("+deb").is_some_and(|(_, release)| release.bytes().all(|byte| byte.is_ascii_digit()))
}

/// All numbers in a version, by which versions are ordered: `6.1.0-9` before `6.1.0-56`.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// What `uname -r` says of an image: its setup header has the offset of the text, less one sector.
fn release(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = usize::from(u16::from_le_bytes([*image.get(0x20e)?, *image.get(0x20f)?])) + 0x200;
    let text = image.get(offset..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number_and_not_by_letter() {
        let names = names(&[
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.1.0-57-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.9+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.118+deb12-rt-amd64",
            "linux-image-6.12.118+deb12-cloud-amd64-dbg",
        ]);
        assert_eq!(newest(&names, "6.1").unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(newest(&names, "6.12").unwrap(), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest(&names, "6.2"), None);
    }

    #[test]
    fn other_flavours_serve_where_the_small_one_is_missing() {
        let debian = names(&["linux-image-6.1.0-56-rt-amd64", "linux-image-6.1.0-56-amd64"]);
        assert_eq!(newest(&debian, "6.1").unwrap(), "linux-image-6.1.0-56-amd64");
        let ubuntu = names(&["linux-image-6.8.0-45-lowlatency", "linux-image-6.8.0-45-generic"]);
        assert_eq!(newest(&ubuntu, "6.8").unwrap(), "linux-image-6.8.0-45-generic");
    }

    #[test]
    fn an_image_says_its_release() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = b"6.1.0-56-cloud-amd64 (debian@x) #1\0";
        image[0x300..0x300 + text.len()].copy_from_slice(text);
        assert_eq!(release(&image).unwrap(), "6.1.0-56-cloud-amd64");
        assert_eq!(release(b"\x7fELF"), None);
        image[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(release(&image), None);
    }

    #[test]
    fn what_is_no_series_and_no_file_is_refused_with_what_would_be_one() {
        let refused = get("six").unwrap_err();
        assert!(refused.contains("six") && refused.contains("6.1 or 6.12"), "{refused}");
        assert!(get("/no/such/vmlinuz").unwrap_err().contains("/no/such/vmlinuz"));
    }
}
