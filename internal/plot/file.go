package plot

import "strings"

// fileColours are for a drawing on white paper.
const fileColours = `:root{--ink:#1c2126;--card:#fff;--rule:#c9c6bd;--bad:#b91c1c;--c0:#0b6e99;--c1:#b4530a;--c2:#4d7c0f;--c3:#7c3aed;--c4:#be185d;--c5:#0f766e;--c6:#854d0e;--c7:#475569}
svg{background:#fff}
`

// File makes an SVG file of what SVG returned: it looks by itself as it does in a page of light colours.
func File(svg string) string {
	open, rest, _ := strings.Cut(svg, ">")
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" + strings.Replace(open, "<svg ", `<svg xmlns="http://www.w3.org/2000/svg" `, 1) +
		"><style>" + fileColours + Style + "</style>" + rest + "\n"
}
