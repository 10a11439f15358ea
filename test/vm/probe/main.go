// probe tries what an attacker would who runs code in the place of the handler, of
// cleanup, of wgkex-http or of wgkex-relay, and writes a line `NAME: OUTCOME` for each
// attempt to the connection. In the place of cleanup and of wgkex-relay, which have none,
// it writes them to the file .probe-report in the directory that they may write, and in
// the place of wgkex-http it takes one connection. It is installed as one of them by the
// sandbox test.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if slices.Contains(os.Args, help) {
		return // it was executed
	}
	runtime.LockOSThread() // capabilities and namespaces are a thread's
	place := placeOf()
	var out *os.File
	switch place {
	case handler:
		out = os.NewFile(3, "connection")
	case http:
		fd, _, err := unix.Accept4(3, unix.SOCK_CLOEXEC)
		if err != nil {
			panic(err)
		}
		out = os.NewFile(uintptr(fd), "connection")
	default:
		report := filepath.Join(place.own(), ".probe-report")
		var err error
		if out, err = os.Create(report + ".new"); err != nil {
			panic(err)
		}
		defer os.Rename(report+".new", report) // whoever sees it sees all
	}
	for _, a := range attempts(place) {
		outcome := "SUCCEEDED"
		if err := a.try(); err != nil {
			outcome = err.Error()
		}
		fmt.Fprintf(out, "%s: %s\n", a.name, outcome)
	}
	out.Close()
}

// place is that of the program in whose place the probe is.
type place string

const (
	handler place = "handler"
	cleanup place = "cleanup"
	http    place = "http"
	relay   place = "relay"
)

func placeOf() place {
	listening, _ := unix.GetsockoptInt(3, unix.SOL_SOCKET, unix.SO_ACCEPTCONN) // 0 where it is no socket
	switch {
	case os.Getenv("STATE_DIRECTORY") != "":
		return relay
	case os.Getenv("LISTEN_FDS") == "":
		return cleanup
	case listening != 0:
		return http
	}
	return handler
}

// own is the directory in /run/wgkex that the program may write.
func (p place) own() string {
	if p == relay {
		return "/run/wgkex/relay"
	}
	return "/run/wgkex/domains"
}

type attempt struct {
	name string
	try  func() error
}

// allow marks attempts that are to succeed.
func allow(list ...attempt) []attempt {
	for i := range list {
		list[i].name = "allowed: " + list[i].name
	}
	return list
}

// attempts are those in the place of a program.
func attempts(p place) []attempt {
	// What they need themselves, to show that attempts can succeed.
	list := allow(attempt{"read the configuration", read("/run/wgkex/effective.toml")})
	kernel := []attempt{
		{"write to the lock directory", write("/run/wgkex/domains")},
		{"open a netlink socket", socket(unix.AF_NETLINK, unix.NETLINK_ROUTE)},
	}
	network := []attempt{
		{"open an IPv4 socket", socket(unix.AF_INET, 0)},
		{"open an IPv6 socket", socket(unix.AF_INET6, 0)},
	}
	switch p {
	case handler, cleanup:
		kernel = allow(kernel...)
	case relay:
		network = append(allow(network...), attempt{"open a raw socket", func() error { return open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }})
		list = append(list, allow(
			attempt{"write what it knows", write(p.own())},
			attempt{"write its ledger", write(os.Getenv("STATE_DIRECTORY"))},
			attempt{"read the password", read(filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), "password"))},
			attempt{"read certificates", read("/etc/ssl/certs/ca-certificates.crt")},
			attempt{"read the addresses of hosts", read("/etc/hosts")},
		)...)
		list = append(list,
			attempt{"read the password's file", read("/etc/wgkex/mqtt.password")},
			attempt{"write to the credentials", write(os.Getenv("CREDENTIALS_DIRECTORY"))},
		)
	}
	if p == http || p == relay {
		list = append(list, allow(attempt{"ask the local socket", connect("/run/wgkex/local.sock")})...)
		for _, kind := range []string{"lock", "state", "counters"} {
			list = append(list, attempt{"read the " + kind + " of a domain", read("/run/wgkex/domains/ffww01." + kind)})
		}
		list = append(list,
			attempt{"listen", listen(p)},
			attempt{"speak WireGuard's netlink", socket(unix.AF_NETLINK, unix.NETLINK_GENERIC)},
			attempt{"ask systemd", connect("/run/systemd/private")},
			attempt{"ask D-Bus", connect("/run/dbus/system_bus_socket")},
		)
	}
	list = append(append(list, kernel...), network...)
	list = append(list, []attempt{
		{"open a packet socket", socket(unix.AF_PACKET, 0)},
		{"open a vsock socket", socket(unix.AF_VSOCK, 0)},
		{"trace PID 1", func() error { return unix.PtraceAttach(1) }},
		{"be traced", call(unix.SYS_PTRACE, unix.PTRACE_TRACEME)},
		{"read PID 1's memory", call(unix.SYS_PROCESS_VM_READV, 1)},
		{"signal PID 1", func() error { return unix.Kill(1, 0) }},
		{"signal the other service", signalOther},
		{"load a module", func() error { return unix.InitModule([]byte("x"), "") }},
		{"load a module from a file", func() error { return unix.FinitModule(3, "", 0) }},
		{"mount", func() error { return unix.Mount("none", p.own(), "tmpfs", 0, "") }},
		{"unmount", func() error { return unix.Unmount(p.own(), unix.MNT_DETACH) }},
		{"open a file system", call(unix.SYS_FSOPEN, 0)},
		{"change the root", func() error { return unix.Chroot(p.own()) }},
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
			name := filepath.Join(p.own(), "probe-suid")
			if err := os.WriteFile(name, nil, 0o755); err != nil {
				return err
			}
			defer os.Remove(name)
			return unix.Chmod(name, 0o4755)
		}},
		{"make a device node", func() error { return unix.Mknod(filepath.Join(p.own(), "probe-node"), unix.S_IFCHR|0o600, 1<<8|3) }},
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
	saved := []attempt{{"write to the saved peers", write("/var/lib/wgkex")}}
	if p == cleanup {
		saved = allow(saved...)
	}
	list = append(list, saved...)
	list = append(list, attempt{"execute what it has written", func() error {
		name := filepath.Join(p.own(), "probe-program")
		program, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(name, program, 0o755)
		}
		if err != nil {
			return err
		}
		defer os.Remove(name)
		return execute(name)
	}})
	for _, program := range []string{"/bin/sh", "/usr/bin/wgkex", "/usr/bin/env"} {
		// Last, since success does not come back.
		list = append(list, attempt{"execute " + program, func() error {
			return execute(program)
		}})
	}
	return list
}

// signalOther signals the process whose ID the test has written for all to read:
// one of the other user's. The runtime needs tgkill(2), so no filter stops it.
func signalOther() error {
	text, err := os.ReadFile("/run/wgkex/.probe-pid")
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
		return open(family, unix.SOCK_DGRAM, protocol)
	}
}

func open(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// listen listens on the socket of wgkex-http, and elsewhere on one of its own.
func listen(p place) func() error {
	return func() error {
		if p == http {
			return unix.Listen(3, 1)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Listen(fd, 1)
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

// help lets an executed program end.
const help = "--help"

// execute starts the program in a process of its own.
func execute(program string) error {
	pid, err := syscall.ForkExec(program, []string{program, help}, nil)
	if err == nil {
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	return err
}
