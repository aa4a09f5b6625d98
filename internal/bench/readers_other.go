//go:build !linux

package bench

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// takeAll counts what comes until ctx ends or a stream does.
func takeAll(ctx context.Context, all []*reader) error {
	crew, ctx := errgroup.WithContext(ctx)
	for _, r := range all {
		crew.Go(func() error {
			defer context.AfterFunc(ctx, func() { r.conn.Close() })()
			buffer := make([]byte, 4<<10)
			for {
				n, err := r.conn.Read(buffer)
				if err != nil {
					return err
				}
				r.part(buffer[:n])
			}
		})
	}
	return crew.Wait()
}
