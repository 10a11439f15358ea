// client makes exchanges for the bench and says how long they took.
//
// With -measure it runs a command instead and prints its wall time and CPU
// time in milliseconds and its peak memory in KiB.
package main

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a client waits for the gateway to close. Emulation is
// slow, and a client that gives up would hide how slow.
const patience = 2 * time.Minute

func main() {
	address := flag.String("address", "127.0.0.1:10012", "the gateway")
	domain := flag.String("domain", "bench", "first line of the request, empty for the floor, which does not read any")
	keys := flag.String("keys", "", "take the keys from this file, in turn, instead of making new ones")
	generate := flag.Int("generate", 0, "print this many public keys and end")
	count := flag.Int("count", 1, "exchanges")
	parallel := flag.Int("parallel", 1, "exchanges at a time")
	over := flag.Duration("over", 0, "start the exchanges evenly over this time, however many run already")
	retry := flag.Duration("retry", time.Minute, "with -over: pause of a router whose exchange failed")
	log := flag.String("latencies", "", "append the latency of each exchange, in milliseconds, to this file")
	measured := flag.Bool("measure", false, "run the command in the arguments")
	flag.Parse()
	if *measured {
		if err := measure(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(*address, *domain, *keys, *generate, *count, *parallel, *over, *retry, *log); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

func run(address, domain, file string, generate, count, parallel int, over, retry time.Duration, log string) error {
	if generate > 0 {
		keys, err := newKeys(generate)
		if err != nil {
			return err
		}
		_, err = fmt.Println(strings.Join(keys, "\n"))
		return err
	}
	// Before the clock runs.
	keys, err := readKeys(file, count)
	if err != nil {
		return err
	}
	exchange := func(i int) error { return exchange(address, domain, keys[i%len(keys)]) }
	if over > 0 {
		return storm(exchange, count, over, retry)
	}
	return batch(exchange, count, parallel, log)
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

func readKeys(file string, count int) ([]string, error) {
	if file == "" {
		return newKeys(count)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var keys []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		keys = append(keys, lines.Text())
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no keys", file)
	}
	return keys, lines.Err()
}

func newKeys(n int) ([]string, error) {
	keys := make([]string, n)
	for i := range keys {
		private, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		keys[i] = base64.StdEncoding.EncodeToString(private.PublicKey().Bytes())
	}
	return keys, nil
}

// exchange is nil when the gateway closes without a word or after OK, which
// is also what becomes of a connection to the floor.
func exchange(address, domain, key string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if domain != "" {
		if _, err := io.WriteString(conn, domain+"\n"+key+"\n"); err != nil {
			return err
		}
	}
	answer, err := io.ReadAll(conn)
	if len(answer) > 0 && string(answer) != "OK\n" {
		return fmt.Errorf("the gateway answers %q", answer)
	}
	return err
}

// batch prints count, errors, and in milliseconds the median and the 99th
// percentile of the latencies and the time that all took together.
func batch(exchange func(int) error, count, parallel int, log string) error {
	var (
		mu        sync.Mutex
		next      int
		latencies []time.Duration
		failures  []error
		wg        sync.WaitGroup
	)
	start := time.Now()
	for range parallel {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= count {
					return
				}
				began := time.Now()
				err := exchange(i)
				took := time.Since(began)
				mu.Lock()
				if err != nil {
					failures = append(failures, err)
				} else {
					latencies = append(latencies, took)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	if err := appendAll(log, latencies); err != nil {
		return err
	}
	fmt.Println(count, len(failures), milliseconds(quantile(latencies, 0.5)), milliseconds(quantile(latencies, 0.99)), milliseconds(took))
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d failed, first: %w", len(failures), count, failures[0])
	}
	return nil
}

func appendAll(file string, latencies []time.Duration) error {
	if file == "" {
		return nil
	}
	var text strings.Builder
	for _, l := range latencies {
		fmt.Fprintln(&text, milliseconds(l))
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
func storm(exchange func(int) error, count int, over, retry time.Duration) error {
	var (
		mu             sync.Mutex
		first, served  int
		latencies      []time.Duration
		last           time.Duration
		wg             sync.WaitGroup
		refusal, other error
	)
	const tries = 5
	start := time.Now()
	for i := range count {
		wg.Go(func() {
			time.Sleep(time.Until(start.Add(over * time.Duration(i) / time.Duration(count))))
			for try := range tries {
				began := time.Now()
				err := exchange(i)
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
