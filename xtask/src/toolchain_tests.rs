use super::*;

const OLDEST: (u32, u32) = (1, 95);

fn compiler(path: &str, release: (u32, u32), llvm: u32) -> Compiler {
    Compiler { rustc: path.into(), release, llvm, core: true }
}

fn linker(llvm: Option<u32>) -> Linker {
    Linker { path: format!("/bin/linker-{}", llvm.unwrap_or_default()).into(), llvm }
}

fn everything() -> Facts {
    Facts {
        nightly: Some(compiler("/nightly/bin/rustc", (1, 101), 23)),
        distribution: Some(compiler("/usr/bin/rustc", (1, 96), 22)),
        linkers: vec![linker(Some(23))],
    }
}

#[test]
fn nightly_comes_first_where_all_is_there() {
    let chosen = choose(&everything(), OLDEST).unwrap();
    assert_eq!(chosen.way, Way::Nightly);
    let recipe = chosen.recipe(Path::new("/stable/bin/cargo"), "bpfel-unknown-none", "x86_64");
    assert_eq!(recipe.program, Path::new("/nightly/bin/cargo"));
    assert!(recipe.args.contains(&"build-std=core".into()));
    assert!(!recipe.env.iter().any(|(name, _)| *name == "RUSTC_BOOTSTRAP"));
}

#[test]
fn a_nightly_without_rust_src_leaves_it_to_the_distribution() {
    let mut facts = everything();
    facts.nightly.as_mut().unwrap().core = false;
    let chosen = choose(&facts, OLDEST).unwrap();
    assert_eq!(chosen.way, Way::Distribution);
    let recipe = chosen.recipe(Path::new("/stable/bin/cargo"), "bpfel-unknown-none", "x86_64");
    assert_eq!(recipe.program, Path::new("/stable/bin/cargo"));
    assert!(recipe.env.contains(&("RUSTC", "/usr/bin/rustc".into())));
    assert!(recipe.env.contains(&("RUSTC_BOOTSTRAP", "1".into())));
    assert!(!recipe.args.contains(&"-Z".into()));
}

#[test]
fn a_linker_with_an_older_llvm_than_nightly_serves_the_distribution() {
    let facts = Facts { linkers: vec![linker(Some(22))], ..everything() };
    assert_eq!(choose(&facts, OLDEST).unwrap().way, Way::Distribution);
}

#[test]
fn the_first_linker_that_fits_is_taken_and_one_with_llvm_inside_fits_all() {
    let facts = Facts { linkers: vec![linker(Some(21)), linker(None), linker(Some(23))], ..everything() };
    assert_eq!(choose(&facts, OLDEST).unwrap().linker, Path::new("/bin/linker-0"));
}

#[test]
fn nothing_at_all_gives_a_reason_for_each_way() {
    let reasons = choose(&Facts::default(), OLDEST).unwrap_err();
    assert_eq!(reasons, ["rustup nightly: not installed", "/usr/bin/rustc: not installed"]);
}

#[test]
fn a_distribution_older_than_the_workspace_is_refused_with_both_numbers() {
    let facts = Facts { nightly: None, distribution: Some(compiler("r", (1, 85), 19)), ..everything() };
    let reasons = choose(&facts, OLDEST).unwrap_err();
    assert_eq!(reasons[1], "/usr/bin/rustc: 1.85 is older than 1.95");
}

#[test]
fn a_missing_or_unfit_linker_is_named() {
    let reasons = choose(&Facts { linkers: Vec::new(), ..everything() }, OLDEST).unwrap_err();
    assert_eq!(reasons[0], "rustup nightly: no bpf-linker on PATH or in cargo's bin directory");
    let reasons = choose(&Facts { linkers: vec![linker(Some(14))], ..everything() }, OLDEST).unwrap_err();
    assert_eq!(reasons[1], "/usr/bin/rustc: it writes LLVM 22, /bin/linker-14 reads only up to LLVM 14");
}

#[test]
fn flags_survive_a_path_with_a_space() {
    let mut chosen = choose(&everything(), OLDEST).unwrap();
    chosen.linker = "/my tools/bpf-linker".into();
    let flags = chosen.rustflags("x86_64").into_string().unwrap();
    assert_eq!(flags.split('\x1f').next(), Some("-Clinker=/my tools/bpf-linker"));
    assert!(flags.ends_with("--cfg=bpf_target_arch=\"x86_64\""));
}

#[test]
fn a_nightly_with_rust_src_is_preferred_to_an_earlier_one_without() {
    assert_eq!(prefer([1, 2, 4, 6].into_iter(), |number| number % 2 == 0), Some(2));
    assert_eq!(prefer([1, 3].into_iter(), |number| number % 2 == 0), Some(1));
    assert_eq!(prefer(std::iter::empty::<u32>(), |_| true), None);
}

#[test]
fn versions_are_read_from_what_rustc_says() {
    let text = "rustc 1.101.0-nightly (92b5b8c87 2026-10-29)\nrelease: 1.101.0-nightly\nLLVM version: 23.1.4\n";
    assert_eq!(parse_version(text), Some(((1, 101), 23)));
    assert_eq!(parse_version("rustc 1.96.0 (built from a source tarball)\n"), None);
    assert_eq!(parse_release("1.95"), Some((1, 95)));
    assert_eq!(parse_release("nonsense"), None);
}

#[test]
fn the_llvm_of_a_linker_is_read_from_the_library_it_loads() {
    assert_eq!(parse_needed_llvm(b"\0libLLVM.so.22.1\0"), Some(22));
    assert_eq!(parse_needed_llvm(b"\0libLLVM-17.so.1\0"), Some(17));
    assert_eq!(parse_needed_llvm(b"libLLVM not found\0libLLVM.so.23.1\0"), Some(23));
    assert_eq!(parse_needed_llvm(b"all inside"), None);
}

#[test]
fn the_byte_order_of_the_machine_is_that_of_the_object() {
    assert_eq!((target("little"), target("big")), ("bpfel-unknown-none", "bpfeb-unknown-none"));
}
