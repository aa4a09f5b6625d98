//go:build !race

package sign_test

const allowedAllocations = 0
