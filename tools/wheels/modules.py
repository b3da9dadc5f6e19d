"""What compiled modules ask other libraries for."""

from __future__ import annotations

from pathlib import Path

from elftools.elf.elffile import ELFFile

# libtorch's stable interface in C, and Python's.
FAMILIES = ("aoti_torch_", "torch_", "Py", "_Py")


def unversioned_symbols(path: Path) -> set[str]:
    """Symbols that must be there when the module is loaded, and of which no version of a library is named."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        versions = elf.get_section_by_name(".gnu.version")
        return {
            symbol.name
            for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols())
            if symbol.name
            and symbol["st_shndx"] == "SHN_UNDEF"
            and symbol["st_info"]["bind"] != "STB_WEAK"
            and not isinstance(versions.get_symbol(number)["ndx"], int)
        }


def unknown_symbols(path: Path) -> set[str]:
    """Those that neither torch's stable interface nor Python has: auditwheel does not look at them."""
    return {name for name in unversioned_symbols(path) if not name.startswith(FAMILIES)}
