//! Namespaces: joining, leaving and setting them up.

use super::fd::own;
use super::{Result, cvt};
use nix::libc;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Joins the namespace that `fd` stands for, or those of the process that it stands for (a pidfd, 5.8).
///
/// `kinds` are `CLONE_NEW*` bits; 0 joins whatever one namespace `fd` is.
pub fn join(fd: BorrowedFd<'_>, kinds: u64) -> Result<()> {
    // SAFETY: integers only.
    cvt(unsafe { libc::setns(fd.as_raw_fd(), kinds as libc::c_int) }.into())?;
    Ok(())
}

/// Leaves the present namespaces of those kinds for new ones.
pub fn unshare(kinds: u64) -> Result<()> {
    // SAFETY: integers only; CLONE_VM and the like are not among the kinds, so no memory changes hands.
    cvt(unsafe { libc::unshare(kinds as libc::c_int) }.into())?;
    Ok(())
}

/// Returns which kind (`CLONE_NEW*`) of namespace a descriptor stands for.
pub fn kind(fd: BorrowedFd<'_>) -> Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this ioctl takes no argument.
    Ok(cvt(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into())? as u64)
}

/// Sets the host name of the present UTS namespace.
pub fn set_hostname(name: &CStr) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    cvt(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }.into())?;
    Ok(())
}

/// Sets the NIS domain name of the present UTS namespace.
pub fn set_domainname(name: &CStr) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    cvt(unsafe { libc::setdomainname(name.as_ptr(), name.to_bytes().len()) }.into())?;
    Ok(())
}

/// Brings the loopback interface of the present network namespace up.
pub fn loopback_up() -> Result<()> {
    let mut request = interface(c"lo");
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ask(libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

/// Returns the index of a network device of the present network namespace. Nothing is allocated.
pub fn interface_index(name: &CStr) -> Result<u32> {
    let mut request = interface(name);
    ask(libc::SIOCGIFINDEX as libc::Ioctl, &mut request)?;
    // SAFETY: SIOCGIFINDEX has written this member.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
}

/// Returns a request about a network device; what is too long for a name is none of any.
fn interface(name: &CStr) -> libc::ifreq {
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request
}

/// Carries a request about a network device out (netdevice(7)).
fn ask(what: libc::Ioctl, request: &mut libc::ifreq) -> Result<()> {
    // SAFETY: integers only.
    let socket = own(cvt(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into())?);
    // SAFETY: `request` outlives the call, which reads and writes what an ifreq has.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut *request) }.into())?;
    Ok(())
}
