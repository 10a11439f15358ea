package page

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"wgkex/internal/policy"
	"wgkex/internal/status"
)

const (
	// PageSize is how many peers are on one page.
	PageSize = 100
	// maxSearch is more than a key and more than an address and its prefix, in bytes.
	maxSearch = 64
	// maxPage bounds what is parsed. There are never so many peers.
	maxPage = 1 << 20
)

// Query is what a browser asks for.
type Query struct {
	// Domain is the one whose peers are shown, empty for none.
	Domain string
	// Search is a part of the public key, the addresses or the endpoint of a peer.
	Search string
	// State is that of the peers, empty for any.
	State policy.State
	// Page begins at 1.
	Page int
	// Still says that the page does not refresh by itself.
	Still bool
}

// ErrNoDomain is the error of a query for a domain that there is not.
var ErrNoDomain = errors.New("there is no such domain")

// ParseQuery reads what comes after the question mark. Where there is one domain, it is
// the one that is shown.
func ParseQuery(values url.Values, domains []string) (q Query, err error) {
	q = Query{
		Domain: values.Get("domain"), Search: strings.TrimSpace(values.Get("q")), State: policy.State(values.Get("state")),
		Page: 1, Still: values.Get("refresh") == "off",
	}
	if q.Domain == "" && len(domains) == 1 {
		q.Domain = domains[0]
	}
	if text := values.Get("page"); text != "" {
		if q.Page, err = strconv.Atoi(text); err != nil || q.Page < 1 || q.Page > maxPage {
			return q, errors.New("page is no number of a page")
		}
	}
	switch {
	case q.Domain != "" && !slices.Contains(domains, q.Domain):
		return q, ErrNoDomain
	case len(q.Search) > maxSearch:
		return q, fmt.Errorf("q is longer than %d bytes", maxSearch)
	case q.State != "" && !slices.Contains(status.States, q.State):
		return q, errors.New("state is none of a peer")
	}
	return q, nil
}

// link is a relative URL of the page with this query, so that it is right behind a proxy
// with a path of its own.
func (q Query) link() string {
	values := url.Values{}
	for name, value := range map[string]string{"domain": q.Domain, "q": q.Search, "state": string(q.State)} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Page > 1 {
		values.Set("page", strconv.Itoa(q.Page))
	}
	if q.Still {
		values.Set("refresh", "off")
	}
	return "?" + values.Encode()
}

// of is the query for a domain alone.
func (q Query) of(domain string) Query { return Query{Domain: domain, Still: q.Still} }

// only is the query for peers of one state, or of any for "".
func (q Query) only(state policy.State) Query {
	q.State, q.Page = state, 1
	return q
}

// at is the query for another page of the same peers.
func (q Query) at(page int) Query {
	q.Page = page
	return q
}

// still is the same with or without refreshing.
func (q Query) still(still bool) Query {
	q.Still = still
	return q
}

// matcher tells which peers the query is about.
func (q Query) matcher() func(*status.Peer) bool {
	search := strings.ToLower(q.Search)
	// An address is found however it is written.
	addr, err := netip.ParseAddr(search)
	if err == nil {
		search = addr.String()
	}
	return func(p *status.Peer) bool {
		if q.State != "" && p.State != q.State {
			return false
		}
		if search == "" || strings.Contains(p.Address, search) || strings.Contains(p.Endpoint, search) || strings.Contains(strings.ToLower(p.Key.String()), search) {
			return true
		}
		return slices.ContainsFunc(p.AllowedIPs, func(prefix netip.Prefix) bool {
			return err == nil && prefix.Contains(addr) && prefix.Bits() > 0 || strings.Contains(prefix.String(), search)
		})
	}
}

// choose is the peers of the page that the query is about, those with the newest
// handshake first, and how many there are on all pages. A page after the last one is the
// last one.
func (q Query) choose(peers []status.Peer) (chosen []*status.Peer, total, page, pages int) {
	match := q.matcher()
	var all []*status.Peer
	for i := range peers {
		if match(&peers[i]) {
			all = append(all, &peers[i])
		}
	}
	slices.SortFunc(all, newer)
	pages = max(1, (len(all)+PageSize-1)/PageSize)
	page = min(q.Page, pages)
	first := (page - 1) * PageSize
	return all[first:min(first+PageSize, len(all))], len(all), page, pages
}

// newer orders peers by their last handshake, and those that never had one by their key
// after all others.
func newer(a, b *status.Peer) int {
	return cmp.Or(-status.CompareTimes(a.LastHandshake, b.LastHandshake), slices.Compare(a.Key[:], b.Key[:]))
}
