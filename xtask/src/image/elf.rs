//! What does a binary need besides itself?

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::at;

/// The architecture in the words of the image specification.
///
/// Read from the file and not from this machine: it may have been built for another one.
pub(super) fn platform(binary: &Path) -> Result<&'static str, String> {
    let mut head = [0; 20];
    File::open(binary).and_then(|mut file| file.read_exact(&mut head)).map_err(at(binary))?;
    architecture(&head).map_err(at(binary))
}

/// `e_ident` and `e_machine` of an ELF file, from elf.h.
fn architecture(head: &[u8; 20]) -> Result<&'static str, String> {
    const LITTLE: u8 = 1;
    if head[..4] != *b"\x7fELF" || head[5] != LITTLE {
        return Err("not a program for Linux on a little-endian machine".into());
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        62 => Ok("amd64"),
        183 => Ok("arm64"),
        other => Err(format!("a program for a machine that images are not made for (e_machine {other})")),
    }
}

/// Whether it was built for this machine, and can be asked here what it needs.
pub(super) fn is_native(binary: &Path) -> Result<bool, String> {
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Ok(platform(binary)? == here)
}

/// Whether it names a program that loads it (`PT_INTERP`), from elf.h: at 32 where the segments are, at 54 the size and at
/// 56 the number of their headers.
fn is_dynamic(file: &[u8]) -> Option<bool> {
    const INTERPRETER: [u8; 4] = 3_u32.to_le_bytes();
    let half = |at: usize| file.get(at..at + 2)?.try_into().map(u16::from_le_bytes).ok();
    let first = usize::try_from(u64::from_le_bytes(file.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    let kind = |n: usize| file.get(first.checked_add(n * size)?..)?.get(..4);
    (0..count).map(|n| kind(n).map(|kind| kind == INTERPRETER)).try_fold(false, |any, one| Some(any || one?))
}

/// The shared libraries that it loads, and the program that loads them; none for a static one.
///
/// The dynamic linker says it itself, through `ldd`: it knows where this machine's libraries lie.
pub(super) fn libraries(binary: &Path) -> Result<Vec<PathBuf>, String> {
    if !is_native(binary)? {
        let file = std::fs::read(binary).map_err(at(binary))?;
        return match is_dynamic(&file) {
            Some(false) => Ok(Vec::new()),
            _ => Err(at(binary)("it is for another machine, whose libraries are not here: make the image there")),
        };
    }
    let output = Command::new("ldd").arg(binary).env("LC_ALL", "C").output().map_err(|e| format!("ldd: {e}"))?;
    let (said, complaints) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // musl says the second.
    if [&said, &complaints]
        .iter()
        .any(|text| text.contains("not a dynamic executable") || text.contains("statically linked"))
    {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        return Err(format!("ldd {}: {}", binary.display(), complaints.trim()));
    }
    parse(&said).map_err(at(binary))
}

/// `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)`, `/lib64/ld-linux-x86-64.so.2 (0x00007f)`, and one without
/// a path, which the kernel brings.
fn parse(said: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for line in said.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place == "not found" {
            return Err(format!("needs {name}, which this machine does not have"));
        }
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007fe67d5e4000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe67993e000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007fe67d5e6000)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse(said), Ok(paths.to_vec()));
        assert_eq!(
            parse("\tlibodd.so.1 => not found\n"),
            Err("needs libodd.so.1, which this machine does not have".into())
        );
    }

    #[test]
    fn programs_that_are_loaded_by_another_one_are_told_from_static_ones() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let dynamic = cfg!(not(target_feature = "crt-static"));
        assert_eq!(is_dynamic(&own), Some(dynamic));
        let mut static_one = vec![0; 64 + 56];
        (static_one[32], static_one[54], static_one[56], static_one[64]) = (64, 56, 1, 1);
        assert_eq!(is_dynamic(&static_one), Some(false));
        static_one[64] = 3;
        assert_eq!(is_dynamic(&static_one), Some(true));
        static_one[33] = 0xff;
        assert_eq!(is_dynamic(&static_one), None, "its headers are not there");
    }

    #[test]
    fn machines_are_told_apart_and_scripts_refused() {
        let mut head = [0; 20];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 62;
        assert_eq!(architecture(&head), Ok("amd64"));
        head[18] = 183;
        assert_eq!(architecture(&head), Ok("arm64"));
        head[18] = 2;
        assert!(architecture(&head).is_err());
        assert!(architecture(b"#!/bin/sh\nexec mesh\n").is_err());
    }
}
