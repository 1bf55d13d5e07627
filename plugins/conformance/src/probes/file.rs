//! The shared object's symbols.

use std::path::Path;

use elf::ElfBytes;
use elf::abi::{SHN_UNDEF, STT_FUNC};
use elf::endian::AnyEndian;
use ringport_plugin_abi::ENTRY_SYMBOL;

use crate::report::{Finding, Problem};
use crate::run::Run;

/// Far above any plugin.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What the linker adds by itself.
const OF_THE_LINKER: [&str; 6] = ["_init", "_fini", "_edata", "_end", "__bss_start", "_start"];

pub(super) fn symbols(run: &mut Run<'_>) -> Result<(), Finding> {
    let Some(file) = run.options.file.clone() else {
        run.not_applicable(3, "linked in; check the file with `ringport plugin check`");
        return Ok(());
    };
    let symbols = match read(&file) {
        Ok(symbols) => symbols,
        Err(problem) => {
            let remedy = "build a shared object for this machine";
            return Err(Problem::new("an ELF shared object", problem, remedy).breaks(3));
        }
    };
    let is_entry = |symbol: &&Symbol| symbol.is_defined && symbol.name == ENTRY_SYMBOL;
    if !symbols.iter().find(is_entry).is_some_and(|entry| entry.is_function) {
        let expected = format!("a function called {ENTRY_SYMBOL}");
        let remedy = "export it (Rust: export!, C: ringport_plugin.h)";
        return Err(Problem::new(expected, "none", remedy).breaks(3));
    }
    let is_extra = |symbol: &&Symbol| {
        symbol.is_defined
            && symbol.name != ENTRY_SYMBOL
            && !OF_THE_LINKER.contains(&symbol.name.as_str())
    };
    let extra: Vec<&str> = symbols.iter().filter(is_extra).map(|s| s.name.as_str()).collect();
    if !extra.is_empty() {
        let found =
            format!("{} more: {}", extra.len(), extra.get(..5).unwrap_or(&extra).join(", "));
        let remedy = "compile with -fvisibility=hidden (Rust: no other #[no_mangle])";
        let problem = Problem::new("one exported symbol", found, remedy);
        run.found(problem.breaks(3));
    }
    let is_hosts = |symbol: &&Symbol| !symbol.is_defined && symbol.name.starts_with("ringport_");
    if let Some(symbol) = symbols.iter().find(is_hosts) {
        let remedy = "call the host through its table only";
        let found = format!("{}, which it expects elsewhere", symbol.name);
        return Err(Problem::new("no symbol of the host's", found, remedy).breaks(3));
    }
    if extra.is_empty() {
        run.pass(3, format!("{ENTRY_SYMBOL} alone"));
    }
    Ok(())
}

struct Symbol {
    name: String,
    is_defined: bool,
    is_function: bool,
}

fn read(file: &Path) -> Result<Vec<Symbol>, String> {
    let length = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{length} bytes"));
    }
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let elf = ElfBytes::<AnyEndian>::minimal_parse(&bytes).map_err(|error| error.to_string())?;
    let tables = elf.dynamic_symbol_table().map_err(|error| error.to_string())?;
    let (table, names) = tables.ok_or("a file without dynamic symbols")?;
    // The first one is always empty.
    let symbols = table.iter().skip(1).map(|symbol| {
        let name = names.get(symbol.st_name as usize).map_err(|error| error.to_string())?;
        Ok(Symbol {
            name: name.to_owned(),
            is_defined: symbol.st_shndx != SHN_UNDEF,
            is_function: symbol.st_symtype() == STT_FUNC,
        })
    });
    symbols.collect()
}
