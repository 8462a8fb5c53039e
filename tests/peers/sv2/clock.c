/* Preloaded into one program, makes its clock CLOCK_AHEAD_SECONDS ahead of the machine's; timers are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, time);
    const char *ahead = getenv("CLOCK_AHEAD_SECONDS");
    if (outcome == 0 && clock == CLOCK_REALTIME && ahead)
        time->tv_sec += atol(ahead);
    return outcome;
}
