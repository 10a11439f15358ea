// client makes exchanges for the bench and says how long they took.
//
// With -measure it runs a command instead and prints its wall time and CPU
// time in milliseconds and its peak memory in KiB.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"wgkex/internal/address"
	"wgkex/internal/address/addresstest"
)

// patience is how long a client waits for the gateway to close. Emulation is
// slow, and a client that gives up would hide how slow.
const patience = 2 * time.Minute

func main() {
	var g gateway
	flag.StringVar(&g.address, "address", "127.0.0.1:10012", "the gateway, or the path of its socket")
	flag.StringVar(&g.domain, "domain", "bench", "first line of the request, empty for the floor, which does not read any")
	flag.StringVar(&g.refusal, "refusal", "", "the code with which the gateway is to refuse all exchanges")
	flag.BoolVar(&g.kept, "kept", false, "make many exchanges on one connection, for a gateway that answers OK")
	flag.BoolVar(&g.http, "http", false, "speak HTTP: as a router, or with -kept as a reverse proxy")
	keys := flag.String("keys", "", "take the keys from this file, in turn, instead of making new ones")
	generate := flag.Int("generate", 0, "print this many public keys and end")
	colliding := flag.Bool("colliding", false, "print two public keys with the same address and end")
	count := flag.Int("count", 1, "exchanges")
	during := flag.Duration("during", 0, "make exchanges for so long, whatever their count")
	parallel := flag.Int("parallel", 1, "exchanges at a time")
	over := flag.Duration("over", 0, "start the exchanges evenly over this time, however many run already")
	retry := flag.Duration("retry", time.Minute, "with -over: pause of a router whose exchange failed")
	hostile := flag.Bool("hostile", false, "with -during: do not mind exchanges that fail")
	log := flag.String("latencies", "", "append the latency of each exchange, in milliseconds, to this file")
	measured := flag.Bool("measure", false, "run the command in the arguments")
	flag.Parse()
	var err error
	switch {
	case *measured:
		err = measure(flag.Args())
	case *generate > 0:
		for range *generate {
			fmt.Println(newKey())
		}
	case *colliding:
		a, b := addresstest.Colliding()
		fmt.Printf("%s\n%s\n", a, b)
	default:
		if g.keys, err = readKeys(*keys); err != nil {
			break
		}
		if *over > 0 {
			err = storm(g, *count, *over, *retry)
		} else {
			err = batch(g, *count, *parallel, *during, *hostile, *log)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func measure(args []string) error {
	if len(args) == 0 {
		return errors.New("no command to measure")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	state := cmd.ProcessState
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return errors.New("no resource usage")
	}
	fmt.Println(milliseconds(time.Since(start)), milliseconds(state.UserTime()+state.SystemTime()), usage.Maxrss)
	return nil
}

func readKeys(file string) ([]string, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	keys := strings.Fields(string(text))
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no keys", file)
	}
	return keys, nil
}

// newKey is a random public key. Nobody knows its private key, since to compute
// the one from the other would be part of what is measured. Nearly every number
// below 2^255 is a public key (RFC 7748 section 5); chance does not find the few
// that wgkex refuses.
func newKey() address.Key {
	var key address.Key
	_, _ = rand.Read(key[:]) // it never fails
	key[len(key)-1] &= 0x7f
	return key
}

// gateway is how exchanges are made with it.
type gateway struct {
	address, domain string
	refusal         string   // the code that it is to answer, empty for an acceptance
	keys            []string // empty for a new one each time
	kept, http      bool
}

// session is the connections of one who makes exchanges one after the other.
type session struct {
	gateway
	// source is the address from which it comes over HTTP, its own as a router's is:
	// wgkex-http limits what one address asks for at a time.
	source netip.Addr
	conn   net.Conn // if it is kept
	lines  *bufio.Reader
}

func (s *session) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	network := "tcp"
	if strings.HasPrefix(s.address, "/") {
		network = "unix"
	} else if s.http {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.source, 0))
	}
	return dialer.DialContext(ctx, network, s.address)
}

// open connects, if it is for more than one exchange.
func (s *session) open(ctx context.Context) (err error) {
	if s.kept {
		s.conn, err = s.dial(ctx)
		s.lines = bufio.NewReader(s.conn)
	}
	return err
}

// exchange makes the exchange with this number, and says whether the gateway took
// its connection.
func (s *session) exchange(ctx context.Context, i int) (connected bool, err error) {
	key := newKey().String()
	if len(s.keys) > 0 {
		key = s.keys[i%len(s.keys)]
	}
	conn := s.conn
	if !s.kept {
		if conn, err = s.dial(ctx); err != nil {
			return false, err
		}
		defer conn.Close()
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return true, err
	}
	if s.domain != "" {
		if _, err := io.WriteString(conn, s.request(key)); err != nil {
			return true, err
		}
	}
	answer, err := s.answer(conn)
	if err != nil {
		return true, err
	}
	want := "OK\n"
	switch {
	case s.http:
		want = `{"Message":"OK"}` + "\n"
	case s.refusal != "":
		want = "ERR: " + s.refusal + "\n"
	}
	// Nothing is an acceptance, too, and what becomes of a connection to the floor.
	if answer != want && (answer != "" || s.refusal != "" || s.kept || s.http) {
		return true, fmt.Errorf("the gateway answers %q", answer)
	}
	return true, nil
}

// request is what is sent for the key. Over HTTP it has the headers that BusyBox
// wget sends, or what a reverse proxy adds.
func (s *session) request(key string) string {
	if !s.http {
		return s.domain + "\n" + key + "\n"
	}
	header := "Connection: close"
	if s.kept {
		header = "X-Forwarded-For: " + s.source.String()
	}
	body := `{"domain": "` + s.domain + `", "public_key": "` + key + `"}`
	return "POST /api/v1/wg/key/exchange HTTP/1.1\r\nHost: gateway\r\nUser-Agent: Wget\r\n" + header +
		"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// answer is all that the gateway says before it closes, or one line if it does
// not close. Of an answer over HTTP it is the body, which is one line.
func (s *session) answer(conn net.Conn) (string, error) {
	if !s.kept {
		all, err := io.ReadAll(conn)
		answer := string(all)
		if s.http {
			_, answer, _ = strings.Cut(answer, "\r\n\r\n")
		}
		return answer, err
	}
	if s.http {
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = s.lines.ReadString('\n'); err != nil {
				return "", err
			}
		}
	}
	return s.lines.ReadString('\n')
}

func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close() // there is nothing left to be written
	}
}

// batch prints count, errors, and in milliseconds the median and the 99th
// percentile of the latencies and the time that all took together. With a time
// it makes no new exchange and waits for no connection after it. Who is hostile
// gets numbers instead: the connections that the gateway took, and how many of
// them were answered as they should be.
func batch(g gateway, count, parallel int, during time.Duration, hostile bool, log string) error {
	var (
		mu              sync.Mutex
		next, connected int
		latencies       []time.Duration
		failures        []error
		wg              sync.WaitGroup
	)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if during > 0 {
		count = math.MaxInt
		ctx, cancel = context.WithTimeout(ctx, during)
		defer cancel()
	}
	// A dialer gives up at the deadline, which can be before the context knows of it.
	over := func() bool {
		end, limited := ctx.Deadline()
		return ctx.Err() != nil || limited && !time.Now().Before(end)
	}
	sessions := make([]session, parallel)
	for i := range sessions {
		sessions[i].gateway = g
		sessions[i].source = netip.AddrFrom4([4]byte{127, 0, byte(i / 250), byte(i%250 + 1)})
		defer sessions[i].close()
		if err := sessions[i].open(ctx); err != nil {
			return err
		}
	}
	start := time.Now()
	for i := range sessions {
		s := &sessions[i]
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= count || over() {
					return
				}
				began := time.Now()
				in, err := s.exchange(ctx, i)
				took := time.Since(began)
				if !in && over() {
					return
				}
				mu.Lock()
				if in {
					connected++
				}
				if err == nil {
					latencies = append(latencies, took)
				} else {
					failures = append(failures, err)
				}
				mu.Unlock()
				if err != nil && g.kept {
					return // there is no connection any more
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if hostile {
		fmt.Println(connected, len(latencies))
		return nil
	}
	if err := appendAll(log, latencies); err != nil {
		return err
	}
	fmt.Println(len(latencies)+len(failures), len(failures), milliseconds(quantile(latencies, 0.5)), milliseconds(quantile(latencies, 0.99)), milliseconds(took))
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d failed, first: %w", len(failures), len(latencies)+len(failures), failures[0])
	}
	return nil
}

func appendAll(file string, latencies []time.Duration) error {
	if file == "" {
		return nil
	}
	var text strings.Builder
	for _, l := range latencies {
		fmt.Fprintf(&text, "%.1f\n", l.Seconds()*1000)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Close())
}

// storm prints count, how many were served in their first try, how many at
// all, the seconds until the last was served, and in milliseconds the median
// and the 99th percentile of the latencies of first tries.
func storm(g gateway, count int, over, retry time.Duration) error {
	var (
		mu             sync.Mutex
		first, served  int
		latencies      []time.Duration
		last           time.Duration
		wg             sync.WaitGroup
		refusal, other error
	)
	const tries = 5
	for len(g.keys) < count { // each router has one
		g.keys = append(g.keys, newKey().String())
	}
	start := time.Now()
	for i := range count {
		wg.Go(func() {
			time.Sleep(time.Until(start.Add(over * time.Duration(i) / time.Duration(count))))
			for try := range tries {
				began := time.Now()
				s := session{gateway: g}
				_, err := s.exchange(context.Background(), i)
				mu.Lock()
				if err == nil {
					served++
					last = max(last, time.Since(start))
					if try == 0 {
						first++
						latencies = append(latencies, time.Since(began))
					}
					mu.Unlock()
					return
				}
				if errors.Is(err, os.ErrDeadlineExceeded) {
					other = err
				} else {
					refusal = err
				}
				mu.Unlock()
				time.Sleep(time.Until(began.Add(retry)))
			}
		})
	}
	wg.Wait()
	fmt.Printf("%d %d %d %.1f %d %d\n", count, first, served, last.Seconds(), milliseconds(quantile(latencies, 0.5)), milliseconds(quantile(latencies, 0.99)))
	if served < count { // a result, too
		fmt.Fprintf(os.Stderr, "%d were never served: %v\n", count-served, errors.Join(refusal, other))
	}
	return nil
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(float64(len(list))*q))]
}

func milliseconds(d time.Duration) int64 { return d.Milliseconds() }
