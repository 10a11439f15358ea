package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ProbeMetrics asks a port of this gateway where metrics are served for the head of the
// page, for which nothing is read, and returns the status of HTTP.
func ProbeMetrics(ctx context.Context, at netip.AddrPort) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+at.String()+"/", nil)
	if err != nil {
		return 0, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// ProbeHTTP names neither a domain nor a key over HTTP, which is refused, and returns
// the code of that. The network and the address are those of package net.
func ProbeHTTP(ctx context.Context, network, address string) (code string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://wgkex/api/v1/wg/key/exchange", strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer struct{ Error struct{ Code string } }
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return "", fmt.Errorf("the answer %s is not that of wgkex: %w", response.Status, err)
	}
	return answer.Error.Code, nil
}
