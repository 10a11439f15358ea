// probe tries what an attacker would who runs code in the place of the handler, of
// cleanup or of wgkex-http, and writes a line `NAME: OUTCOME` for each attempt to the
// connection, or in the place of cleanup, which has none, to the file .probe-report
// beside the locks. In the place of wgkex-http it takes one connection. It is
// installed as one of them by the sandbox test.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread() // capabilities and namespaces are a thread's
	out := os.NewFile(3, "connection")
	if os.Getenv("LISTEN_FDS") == "" {
		var err error
		if out, err = os.Create("/run/wgkex/domains/.probe-report"); err != nil {
			panic(err)
		}
	}
	listening, _ := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) // 0 where it is no socket
	if listening != 0 {
		fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
		if err != nil {
			panic(err)
		}
		out = os.NewFile(uintptr(fd), "connection")
	}
	for _, a := range attempts(listening != 0) {
		outcome := "SUCCEEDED"
		if err := a.try(); err != nil {
			outcome = err.Error()
		}
		fmt.Fprintf(out, "%s: %s\n", a.name, outcome)
	}
	out.Close()
}

type attempt struct {
	name string
	try  func() error
}

// attempts are those in the place of the handler and cleanup or, if http says so, in
// that of wgkex-http.
func attempts(http bool) []attempt {
	// What they need themselves, to show that attempts can succeed.
	list := []attempt{{"allowed: read the configuration", read("/run/wgkex/effective.toml")}}
	kernel := []attempt{
		{"write to the lock directory", write("/run/wgkex/domains")},
		{"open a netlink socket", socket(unix.AF_NETLINK, unix.NETLINK_ROUTE)},
	}
	if http {
		list = append(list, attempt{"allowed: ask the local socket", connect("/run/wgkex/local.sock")})
		for _, kind := range []string{"lock", "state", "counters"} {
			list = append(list, attempt{"read the " + kind + " of a domain", read("/run/wgkex/domains/ffww01." + kind)})
		}
		list = append(list,
			attempt{"listen", func() error { return unix.Listen(3, 1) }},
			attempt{"speak WireGuard's netlink", socket(unix.AF_NETLINK, unix.NETLINK_GENERIC)},
			attempt{"ask systemd", connect("/run/systemd/private")},
			attempt{"ask D-Bus", connect("/run/dbus/system_bus_socket")},
		)
	} else {
		for i := range kernel {
			kernel[i].name = "allowed: " + kernel[i].name
		}
	}
	list = append(list, kernel...)
	list = append(list, []attempt{
		{"open an IPv4 socket", socket(unix.AF_INET, 0)},
		{"open an IPv6 socket", socket(unix.AF_INET6, 0)},
		{"open a packet socket", socket(unix.AF_PACKET, 0)},
		{"open a vsock socket", socket(unix.AF_VSOCK, 0)},
		{"trace PID 1", func() error { return unix.PtraceAttach(1) }},
		{"be traced", call(unix.SYS_PTRACE, unix.PTRACE_TRACEME)},
		{"read PID 1's memory", call(unix.SYS_PROCESS_VM_READV, 1)},
		{"signal PID 1", func() error { return unix.Kill(1, 0) }},
		{"signal the other service", signalOther},
		{"load a module", func() error { return unix.InitModule([]byte("x"), "") }},
		{"load a module from a file", func() error { return unix.FinitModule(3, "", 0) }},
		{"mount", func() error { return unix.Mount("none", "/run/wgkex/domains", "tmpfs", 0, "") }},
		{"unmount", func() error { return unix.Unmount("/run/wgkex/domains", unix.MNT_DETACH) }},
		{"open a file system", call(unix.SYS_FSOPEN, 0)},
		{"change the root", func() error { return unix.Chroot("/run/wgkex/domains") }},
		{"make a user namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"make a mount namespace", func() error { return unix.Unshare(unix.CLONE_NEWNS) }},
		{"make a network namespace", func() error { return unix.Unshare(unix.CLONE_NEWNET) }},
		{"clone into a user namespace", call(unix.SYS_CLONE, unix.CLONE_NEWUSER)},
		{"join a namespace", func() error { return unix.Setns(0, 0) }},
		{"become root", func() error { return unix.Setresuid(0, 0, 0) }},
		{"gain a capability", func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			all := [2]unix.CapUserData{{Effective: ^uint32(0), Permitted: ^uint32(0)}, {}}
			return unix.Capset(&header, &all[0])
		}},
		{"set a UID bit", func() error {
			name := "/run/wgkex/domains/probe-suid"
			if err := os.WriteFile(name, nil, 0o755); err != nil {
				return err
			}
			defer os.Remove(name)
			return unix.Chmod(name, 0o4755)
		}},
		{"make a device node", func() error { return unix.Mknod("/run/wgkex/domains/probe-node", unix.S_IFCHR|0o600, 1<<8|3) }},
		{"load a BPF program", call(unix.SYS_BPF, 5)},
		{"watch performance events", call(unix.SYS_PERF_EVENT_OPEN)},
		{"use io_uring", call(unix.SYS_IO_URING_SETUP, 1)},
		{"use userfaultfd", call(unix.SYS_USERFAULTFD)},
		{"use the keyring", call(unix.SYS_KEYCTL)},
		{"set the clock", func() error { return unix.Settimeofday(&unix.Timeval{}) }},
		{"set the host name", func() error { return unix.Sethostname([]byte("x")) }},
		{"reboot", func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) }},
		{"read the kernel log", call(unix.SYS_SYSLOG, 3)},
		{"change the personality", call(unix.SYS_PERSONALITY, 0x0040000)},
		{"map memory to write and execute", func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
			return err
		}},
		{"run at real-time priority", call(unix.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&[1]int32{1})))},
		{"set a kernel parameter", write2("/proc/sys/net/ipv6/conf/all/forwarding")},
		{"write to the kernel log", write2("/dev/kmsg")},
	}...)
	for _, path := range []string{"/etc/shadow", "/root/secret", "/home/other/secret", "/proc/1/environ", "/proc/kcore", "/dev/mem", "/run/other/secret", "/var/lib/wgkex/secret"} {
		list = append(list, attempt{"read " + path, read(path)})
	}
	for _, dir := range []string{"/", "/etc", "/etc/wgkex", "/usr/lib/wgkex", "/run", "/run/wgkex", "/run/systemd/system", "/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/var/lib"} {
		list = append(list, attempt{"write to " + dir, write(dir)})
	}
	saved := attempt{"write to the saved peers", write("/var/lib/wgkex")}
	if os.Getenv("LISTEN_FDS") == "" { // cleanup saves them, handlers do not
		saved.name = "allowed: " + saved.name
	}
	list = append(list, saved)
	for _, program := range []string{"/bin/sh", "/usr/bin/wgkex", "/usr/bin/env"} {
		// Last, since success does not come back.
		list = append(list, attempt{"execute " + program, func() error {
			return execute(program)
		}})
	}
	return list
}

// signalOther signals the process whose ID the test has written beside the locks:
// one of the other user's. The runtime needs tgkill(2), so no filter stops it.
func signalOther() error {
	text, err := os.ReadFile("/run/wgkex/domains/.probe-pid")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return unix.Tgkill(pid, pid, 0)
}

func read(path string) func() error {
	return func() error {
		_, err := os.ReadFile(path)
		return err
	}
}

func write(dir string) func() error {
	return func() error {
		name := filepath.Join(dir, "probe-file")
		if err := os.WriteFile(name, []byte("x"), 0o644); err != nil {
			return err
		}
		return os.Remove(name)
	}
}

func write2(path string) func() error {
	return func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
}

func socket(family, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

func connect(path string) func() error {
	return func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
}

// call makes a system call, whose other arguments are zero.
func call(number uintptr, args ...uintptr) func() error {
	var a [6]uintptr
	copy(a[:], args)
	return func() error {
		_, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno
		}
		return nil
	}
}

// execute starts the program in a process of its own.
func execute(program string) error {
	pid, err := syscall.ForkExec(program, []string{program, "--help"}, nil)
	if err == nil {
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	return err
}
