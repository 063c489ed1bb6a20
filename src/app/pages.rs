//! Gives the kernel back the pages of the program that only its start needed.
//!
//! To read documents, the certificates and the command line is most of what there is of code, and none of it is needed
//! again before the next reload. Left alone those pages stay in the resident set until memory is short. They stay in the
//! page cache, so that whoever needs one again finds it there for a minor fault.

use std::fs;
use std::io;
use std::ops::Range;

/// Something that lies among the constants of the program.
static CONSTANT: &str = "a constant";

/// Gives them back. Whatever is needed next comes back by itself.
pub(super) fn give_back() {
    if let Err(error) = try_to() {
        tracing::debug!(%error, "the pages of the start stay resident");
    }
}

fn try_to() -> io::Result<()> {
    // Names of files may be anything.
    let maps = fs::read("/proc/self/smaps")?;
    let maps = String::from_utf8_lossy(&maps);
    for within in [give_back as fn() as usize, CONSTANT.as_ptr() as usize] {
        if let Some(pages) = untouched(&maps, within) {
            drop_pages(&pages)?;
        }
    }
    Ok(())
}

/// The mapping that an address lies in, if it is a file's, private and without a way to write to it, and none of its pages
/// was ever copied: by a relocation, or for somebody's breakpoint.
fn untouched(maps: &str, within: usize) -> Option<Range<usize>> {
    let mut lines = maps.lines();
    let (pages, rights, file) = lines.by_ref().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let pages = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
        let (rights, file) = (words.next()?, words.nth(3)?);
        pages.contains(&within).then_some((pages, rights, file))
    })?;
    // Its figures, up to the first line of the next mapping.
    let figures = lines.map_while(|line| line.split_once(':').filter(|(name, _)| !name.contains(' ')));
    let copied = figures.filter(|(name, _)| ["Anonymous", "Swap", "KSM", "Private_Hugetlb"].contains(name));
    let (told, none) = copied.fold((0, true), |(told, none), (name, size)| {
        (told + usize::from(["Anonymous", "Swap"].contains(&name)), none && size.trim() == "0 kB")
    });
    (told == 2 && none && matches!(rights, "r-xp" | "r--p") && file.starts_with('/')).then_some(pages)
}

#[expect(unsafe_code, reason = "the only way to the kernel; proved below")]
fn drop_pages(pages: &Range<usize>) -> io::Result<()> {
    let start = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: `madvise` with MADV_DONTNEED must not change what anybody reads. The range is one whole mapping of this
    // program's own image, which stays mapped as long as the process lives (the loader unmaps only what was opened later).
    // It is private, of a file, not writable, and none of its pages is a copy: each holds what the file holds, and after
    // the call is read from there again (madvise(2)). The kernel may do the same to such pages at any time for want of
    // memory, if later to those that are in use, so nothing can rely on more than that. If a page is copied between the
    // look and the call, by a debugger that sets a breakpoint, the breakpoint is lost and the program reads what it was
    // built with.
    unsafe { rustix::mm::madvise(start, pages.len(), rustix::mm::Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 r--p 00000000 fe:00 17   /usr/bin/pratfall
Size:                  8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
3000-6000 r-xp 00002000 fe:00 17   /usr/bin/pratfall
Size:                 12 kB
Anonymous:             0 kB
SwapPss:               0 kB
Swap:                  0 kB
6000-7000 rw-p 00005000 fe:00 17   /usr/bin/pratfall
Anonymous:             0 kB
Swap:                  0 kB
7000-8000 r--p 00006000 fe:00 17   /usr/bin/pratfall
Anonymous:             4 kB
Swap:                  0 kB
8000-9000 r-xp 00000000 fe:00 18   /usr/lib/breakpoints
Anonymous:             0 kB
Swap:                  4 kB
9000-a000 r--s 00000000 fe:00 19   /shared
Anonymous:             0 kB
Swap:                  0 kB
a000-b000 r--p 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
b000-c000 r-xp 00000000 00:00 0    [vdso]
Anonymous:             0 kB
Swap:                  0 kB
c000-d000 r--p 00000000 fe:00 20   /without/figures
d000-e000 r--p 00000000 fe:00 21   /huge
Anonymous:             0 kB
Private_Hugetlb:    2048 kB
Swap:                  0 kB
";

    #[test]
    fn only_what_the_file_holds_as_well_is_given_back() {
        assert_eq!(untouched(MAPS, 0x1000), Some(0x1000..0x3000));
        assert_eq!(untouched(MAPS, 0x5fff), Some(0x3000..0x6000));
        for kept in [0, 0x6000, 0x7000, 0x8000, 0x9000, 0xa000, 0xb000, 0xc000, 0xd000, 0xe000] {
            assert_eq!(untouched(MAPS, kept), None, "{kept:x}");
        }
        assert_eq!(untouched("", 0), None);
        assert_eq!(untouched("what\n-\n1-\nx-y r--p", 0), None);
    }
}
