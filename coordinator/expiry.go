package coordinator

import (
	"context"
	"time"
)

const (
	expiryNotice = 60 * 24 * time.Hour // so long before their end certificates are warned of
	expiryAgain  = 24 * time.Hour
)

// warnOfExpiry says once a day that this coordinator's certificates or the root end soon.
func (c *Coordinator) warnOfExpiry(ctx context.Context) {
	for ctx.Err() == nil {
		c.warnOnce()
		pause(ctx, expiryAgain)
	}
}

func (c *Coordinator) warnOnce() {
	own, now := c.own.Load(), c.deps.Now()
	if own.expires.Sub(now) < expiryNotice {
		c.deps.Log.Warn("this coordinator's certificates end soon", "expires", own.expires,
			"cure", "choir cluster renew "+c.cfg.Name+" --root-key FILE")
	}
	if own.root.NotAfter.Sub(now) < expiryNotice {
		c.deps.Log.Warn("the root ends soon", "expires", own.root.NotAfter,
			"cure", "choir cluster rotate-root --root-key OLD --new-root-key NEW")
	}
}
