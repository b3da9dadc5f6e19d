"""Libraries to link against that have no newer symbols than a manylinux policy allows.

A linker takes the newest version of each symbol that its C library has, and programs then ask for it on every machine.
Against these stand-ins it takes the newest that the policy knows (``exp@GLIBC_2.2.5`` in place of 2.29), as on a machine
of that age. What libstdc++ got later comes from libstdc++.a into the module itself, as Red Hat's newer compilers for
their older systems have it. Exceptions and all else that crosses modules stay in the shared libstdc++.
"""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from importlib import resources
from pathlib import Path

from elftools.elf.elffile import ELFFile

# What became part of libc.so.6 with 2.34 and has that version, too: library before → how its names begin.
MERGED = "GLIBC_2.34"
BEFORE_MERGE = {
    "libanl.so.1": ("gai_", "getaddrinfo_a"),
    "libdl.so.2": ("dl",),
    "libpthread.so.0": ("pthread_", "sem_"),
    "librt.so.1": ("aio_", "lio_", "mq_", "shm_", "timer_"),
    "libutil.so.1": ("forkpty", "login", "logout", "logwtmp", "openpty"),
}
LIBRARIES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", *BEFORE_MERGE)
LOADER = "ld-linux-x86-64.so.2"
KINDS = {"STT_FUNC": "function", "STT_LOOS": "function", "STT_OBJECT": "object", "STT_TLS": "tls_object"}
# What headers of glibc 2.32 and later ask before each atomic operation. Here: "there may be threads".
SINGLE_THREADED = 'extern "C" char __libc_single_threaded; char __libc_single_threaded = 0;'


def allowed_versions(policy: str, machine: str) -> set[str]:
    """Names of the symbol versions, such as GLIBC_2.28, that auditwheel accepts for the policy."""
    path = resources.files("auditwheel.policy") / "manylinux-policy.json"
    [found] = [entry for entry in json.loads(path.read_text("utf-8")) if entry["name"] == policy]
    versions = found["symbol_versions"][machine]
    return {f"{prefix}_{version}" for prefix, known in versions.items() for version in known}


def symbols_of(library: Path) -> dict[str, tuple[str, list[str]]]:
    """What a library defines: name → kind, versions from the oldest to the newest."""
    with library.open("rb") as file:
        elf = ELFFile(file)
        definitions = elf.get_section_by_name(".gnu.version_d")
        # Numbered as they came.
        names = {entry["vd_ndx"]: next(texts).name for entry, texts in definitions.iter_versions()}
        indices = elf.get_section_by_name(".gnu.version")
        found: dict[str, tuple[str, set[int]]] = {}
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            index = indices.get_symbol(number)["ndx"]
            kind = KINDS.get(symbol["st_info"]["type"])
            if kind and symbol["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS") and isinstance(index, int):
                # The highest bit says that new programs get another version.
                found.setdefault(symbol.name, (kind, set()))[1].add(index & 0x7FFF)
    return {name: (kind, [names[index] for index in sorted(all_)]) for name, (kind, all_) in found.items()}


def allowed_symbols(compiler: str, name: str, allowed: set[str]) -> dict[str, tuple[str, str]]:
    """What the library of that name had when the policy's versions were the newest: name → kind, version."""
    merged = name in BEFORE_MERGE
    starts = BEFORE_MERGE[name] if merged else sum(BEFORE_MERGE.values(), ())
    found = {}
    for symbol, (kind, versions) in symbols_of(located(compiler, "libc.so.6" if merged else name)).items():
        known = [version for version in versions if version in allowed]
        moved = MERGED in versions and MERGED not in allowed and symbol.startswith(starts)
        if known and moved == merged:
            found[symbol] = (kind, known[-1])
    return found


def located(compiler: str, name: str) -> Path:
    """Where the compiler finds a library of its own or the system's."""
    command = [compiler, f"-print-file-name={name}"]
    found = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    if not found.is_absolute():
        raise FileNotFoundError(f"{compiler} has no {name}")
    return found.resolve()


def write_stand_in(compiler: str, library: Path, symbols: dict[str, tuple[str, str]]) -> None:
    """A shared object with these symbols in these versions, but nothing behind them."""
    of_version = defaultdict(list)
    lines = ['.section .note.GNU-stack,"",@progbits']
    for symbol, (kind, version) in symbols.items():
        of_version[version].append(symbol)
        lines.append('.section .tbss,"awT",@nobits' if kind == "tls_object" else ".data")
        lines.append(f".globl {symbol}\n.type {symbol},@{kind}\n.size {symbol},8\n{symbol}: .skip 8")
    source, versions = library.with_suffix(".s"), library.with_suffix(".map")
    source.write_text("\n".join(lines) + "\n")
    versions.write_text("".join(f"{v} {{ global: {'; '.join(of_version[v])}; }};\n" for v in of_version))
    flags = ["-shared", "-nostdlib", f"-Wl,-soname,{library.name}", f"-Wl,--version-script={versions}"]
    subprocess.run([compiler, *flags, source, "-o", library], check=True)


def make(folder: Path, policy: str, machine: str, compiler: str) -> list[str]:
    """Fill the folder with the stand-ins; gives the flags with which the compiler links against them."""
    folder.mkdir(parents=True, exist_ok=True)
    allowed = allowed_versions(policy, machine)
    for name in LIBRARIES:
        write_stand_in(compiler, folder / name, allowed_symbols(compiler, name, allowed))
    support = folder / "single_threaded.o"
    source = ["-x", "c++", "-", "-c", "-fPIC", "-fvisibility=hidden", "-o", support]
    subprocess.run([compiler, *source], input=SINGLE_THREADED, text=True, check=True)
    static = {name: located(compiler, name) for name in ("libc_nonshared.a", "libstdc++.a", LOADER)}
    merged = " ".join(BEFORE_MERGE)
    scripts = {
        "libc.so": f"libc.so.6 {support} {static['libc_nonshared.a']} AS_NEEDED({merged} {static[LOADER]})",
        "libm.so": "libm.so.6",
        "libstdc++.so": f"libstdc++.so.6 {static['libstdc++.a']}",
    }
    for name, parts in scripts.items():
        (folder / name).write_text(f"GROUP({parts})\n")
    return [f"-L{folder}", "-Wl,--exclude-libs,libstdc++.a"]
