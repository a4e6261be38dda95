package main

import (
	"crypto/x509"
	"fmt"
	"time"
)

// expiryNotice is how long before its end a person's certificate is warned of.
const expiryNotice = 30 * 24 * time.Hour

// warnOfExpiry says that the credential of this context ends soon, and what renews it.
func (f *federation) warnOfExpiry(t *terminal, now time.Time) {
	leaf, err := x509.ParseCertificate(f.credential.Chain[0])
	if err != nil || leaf.NotAfter.Sub(now) >= expiryNotice {
		return
	}
	fmt.Fprintf(t.err, "choir: warning: the certificate of %s %s ends on %s\nhint: renew it with the root key: choir credential create %s --renew --root-key FILE\n",
		f.role, f.name, leaf.NotAfter.UTC().Format("2006-01-02 15:04 MST"), f.role)
}
