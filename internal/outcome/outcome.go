// Package outcome says how an exchange ended: accepted, or refused with a code
// and a reason. It knows no wire protocol; each way in renders codes as its
// clients know them.
package outcome

import (
	"errors"
	"fmt"
)

// Code is the outcome in a word, as clients see it.
type Code string

// The codes that a client may see.
const (
	OK              Code = "OK"
	NoDomain        Code = "NO_DOMAIN"
	InvalidDomain   Code = "INVALID_DOMAIN"
	NoKey           Code = "NO_WGKEY"
	InvalidKey      Code = "INVALID_WGKEY"
	ProhibitedKey   Code = "PROHIBITED_WGKEY"
	AddressConflict Code = "ADDRESS_CONFLICT"
	Busy            Code = "BUSY"
	Internal        Code = "INTERNAL"
)

// Codes is all of them. Counters go by their order: new ones come at the end.
var Codes = []Code{OK, NoDomain, InvalidDomain, NoKey, InvalidKey, ProhibitedKey, AddressConflict, Busy, Internal}

// Refusal is the error that ends an exchange: Code goes to the client, Reason
// to the log alone. A Reason never holds bytes that the client sent.
type Refusal struct {
	Code   Code
	Reason error
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Reason.Error() }

// Unwrap is the reason, for errors.Is.
func (r *Refusal) Unwrap() error { return r.Reason }

// Refuse makes a Refusal with a reason as fmt.Errorf formats it.
func Refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Reason: fmt.Errorf(format, args...)}
}

// CodeOf is the code that answers err: OK for nil, Internal for whatever is
// not a Refusal.
func CodeOf(err error) Code {
	var r *Refusal
	switch {
	case err == nil:
		return OK
	case errors.As(err, &r):
		return r.Code
	}
	return Internal
}
