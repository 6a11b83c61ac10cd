//! Keeping a shim small: there is one for each pod.
//!
//! A shim sleeps nearly always. Before it does, it gives back what it doesn't need for sleeping: free heap, and
//! the pages of its own executable, which the kernel keeps in its cache and maps again when they are used.

#![allow(unsafe_code, reason = "tells the allocator and the kernel which pages are not needed")]

/// Gives memory back.
pub(crate) fn trim() {
    // SAFETY: only changes the allocator's bookkeeping.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the callback matches the expected type and gets a null pointer that it doesn't use.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

/// Makes freed memory go back early.
pub(crate) fn configure() {
    // SAFETY: only changes the allocator's parameters.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 << 10);
        libc::mallopt(libc::M_TOP_PAD, 0);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Unmaps the pages of an object's read-only segments, and has those that are read again read one by one.
unsafe extern "C" fn forget_segments(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description with `dlpi_phnum` headers.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr, headers)
    };
    const PAGE: u64 = 4096;
    for header in headers {
        // What is writable now or was once (relocations) exists only here.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr).next_multiple_of(PAGE);
        let end = (base + header.p_vaddr + header.p_memsz) / PAGE * PAGE;
        if start < end {
            let length = (end - start) as usize;
            // SAFETY: whole pages inside of a private mapping of a file that was never written to; touched
            // again they are read from the file.
            unsafe {
                libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
                libc::madvise(start as *mut libc::c_void, length, libc::MADV_RANDOM);
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn life_goes_on_after_trimming() {
        super::configure();
        super::trim();
        let text = format!("{:?}", std::time::SystemTime::now());
        assert!(!text.is_empty());
    }
}
