package client

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"wgkex/internal/address"
	"wgkex/internal/gateways"
	"wgkex/internal/protocol"
)

// What the relay asks wgkex-metrics.socket for.
const (
	// OwnPath is what other gateways are told of this one, KeysPath the managed peers.
	OwnPath  = "/gateway.json"
	KeysPath = "/keys"
	// maxOwn is the longest answer to OwnPath, in bytes, maxKeys the largest number of
	// lines of the other.
	maxOwn  = 1 << 20
	maxKeys = 1 << 20
)

// Metrics asks a port of this gateway where metrics are served.
type Metrics struct{ At netip.AddrPort }

func (m Metrics) get(ctx context.Context, path string, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.At.String()+path, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("metrics answer %s to %s", response.Status, path)
	}
	return read(response.Body)
}

// Own is what other gateways are told of this one. Domains that cannot be read are
// missing.
func (m Metrics) Own(ctx context.Context) (own []gateways.Own, err error) {
	err = m.get(ctx, OwnPath, func(body io.Reader) error {
		return json.NewDecoder(io.LimitReader(body, maxOwn)).Decode(&own)
	})
	return own, err
}

// Peers is the keys of the managed peers, by domain. Domains that cannot be read are
// missing.
func (m Metrics) Peers(ctx context.Context) (map[string][]address.Key, error) {
	peers := map[string][]address.Key{}
	err := m.get(ctx, KeysPath, func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		for n := 0; lines.Scan(); n++ {
			domain, text, isPeer := strings.Cut(lines.Text(), " ")
			if !protocol.ValidName(domain) || n >= maxKeys {
				return fmt.Errorf("the answer to %s has a line that is no peer", KeysPath)
			}
			if !isPeer {
				peers[domain] = []address.Key{}
			} else if key, err := address.ParseKey(text); err == nil { // an admin may have added others
				peers[domain] = append(peers[domain], key)
			}
		}
		return lines.Err()
	})
	if err != nil {
		return nil, err
	}
	return peers, nil
}
