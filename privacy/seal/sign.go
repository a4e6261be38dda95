package seal

import (
	"crypto/ed25519"

	"choir.example/internal/canon"
)

// signed is the message that is signed: the domain, length-prefixed, then the message. Two domains never share one.
func signed(domain string, msg []byte) []byte {
	var w canon.Writer
	w.String(domain)
	w.Fixed(msg)
	return w.Buf
}

// Sign signs a message under a domain string.
func Sign(key ed25519.PrivateKey, domain string, msg []byte) []byte {
	return ed25519.Sign(key, signed(domain, msg))
}

// Verify checks a signature that Sign made.
func Verify(key ed25519.PublicKey, domain string, msg, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, signed(domain, msg), sig)
}

const domainEnrol = "choir/enrol/v1"

func enrolment(token, name string, key []byte) []byte {
	var w canon.Writer
	w.String(token)
	w.String(name)
	w.Bytes(key)
	return w.Buf
}

// ProveEnrolment signs a request to enrol with the key that is to be certified.
func ProveEnrolment(key ed25519.PrivateKey, token, name string) []byte {
	return Sign(key, domainEnrol, enrolment(token, name, key.Public().(ed25519.PublicKey)))
}

// VerifyEnrolment checks what ProveEnrolment made.
func VerifyEnrolment(key ed25519.PublicKey, token, name string, proof []byte) bool {
	return Verify(key, domainEnrol, enrolment(token, name, key), proof)
}

const domainRenew = "choir/renew/v1"

func renewal(cluster, name string, timeMS int64) []byte {
	var w canon.Writer
	w.String(cluster)
	w.String(name)
	w.Int(timeMS)
	return w.Buf
}

// ProveRenewal signs a node's request for a new certificate with its enrolled key. The time is Unix milliseconds on the
// node's clock.
func ProveRenewal(key ed25519.PrivateKey, cluster, name string, timeMS int64) []byte {
	return Sign(key, domainRenew, renewal(cluster, name, timeMS))
}

// VerifyRenewal checks what ProveRenewal made.
func VerifyRenewal(key ed25519.PublicKey, cluster, name string, timeMS int64, proof []byte) bool {
	return Verify(key, domainRenew, renewal(cluster, name, timeMS), proof)
}

const domainMembership = "choir/membership/v1"

// ProveMembership signs the question whether a certificate's holder is still a member, with its key.
func ProveMembership(key ed25519.PrivateKey, leaf []byte) []byte {
	return Sign(key, domainMembership, leaf)
}

// VerifyMembership checks what ProveMembership made.
func VerifyMembership(key ed25519.PublicKey, leaf, proof []byte) bool {
	return Verify(key, domainMembership, leaf, proof)
}

const domainJoin = "choir/join/v1"

func joining(token, name, address string, key, issuer []byte) []byte {
	var w canon.Writer
	w.String(token)
	w.String(name)
	w.String(address)
	w.Bytes(key)
	w.Bytes(issuer)
	return w.Buf
}

// ProveJoin signs a future coordinator's request with the key of its identity; issuer is the key it will certify nodes
// with.
func ProveJoin(key ed25519.PrivateKey, token, name, address string, issuer ed25519.PublicKey) []byte {
	return Sign(key, domainJoin, joining(token, name, address, key.Public().(ed25519.PublicKey), issuer))
}

// VerifyJoin checks what ProveJoin made.
func VerifyJoin(key ed25519.PublicKey, token, name, address string, issuer, proof []byte) bool {
	return Verify(key, domainJoin, joining(token, name, address, key, issuer), proof)
}
