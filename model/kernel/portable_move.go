package kernel

func moveGo(dst, src Grid, rows, cols, n int, add bool) {
	for i := range rows {
		for j := range cols {
			to, from := dst.Data[i*dst.Row+j*dst.Column:][:n], src.Data[i*src.Row+j*src.Column:]
			if add {
				addGo(to, to, from)
			} else {
				copy(to, from)
			}
		}
	}
}
