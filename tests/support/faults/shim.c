/* Preloaded, it makes the n-th call about files within one folder fail as a disk would: see shim.py.
 *
 * Debian's libfiu was looked at first: it knows neither paths nor openat, mkdir and chmod, so that a fault of it would
 * meet Python's own imports.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* The kinds of calls, bits of a mask; shim.py has the same. */
enum {
    LOOK = 1, OPEN = 2, READ = 4, CREATE = 8, WRITE = 16, SYNC = 32, RENAME = 64, CLOSE = 128, MAKE = 256,
    REMOVE = 512, RESIZE = 1024, CHANGE = 2048, LOCK = 4096, LIST = 8192
};
enum { SHORT = -1 }; /* instead of an error: half of what was asked for */

static char folder[PATH_MAX];
static size_t length; /* of folder; 0: nothing is watched */
static int watched, fault, onwards, record = -1;
static long chosen;
static atomic_long count;

/* Watch calls of the kinds in a mask about what is in a folder; 0 as number: only count them. */
void faults_arm(const char *place, int mask, long number, int error, int all_after, int log)
{
    watched = mask, chosen = number, fault = error, onwards = all_after, record = log;
    atomic_store(&count, 0);
    strncpy(folder, place, sizeof folder - 1);
    length = strlen(folder);
}

static int within(const char *path)
{
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The absolute path in `whole`, or 0. */
static const char *resolve(int directory, const char *path, char *whole)
{
    if (path[0] == '/')
        return path;
    char link[64];
    if (directory == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t size = readlink(link, whole, PATH_MAX - 1);
    if (size < 0 || (size_t)size + strlen(path) + 2 > PATH_MAX)
        return 0;
    whole[size] = '/';
    strcpy(whole + size + 1, path);
    return whole;
}

/* Whether this call fails: 0 if not, else the error or SHORT. */
static int meets(int kind, const char *name, int directory, const char *path)
{
    if (!length || !(watched & kind))
        return 0;
    int before = errno;
    char whole[PATH_MAX], line[PATH_MAX + 64];
    if (!path) { /* of an open file */
        snprintf(line, sizeof line, "/proc/self/fd/%d", directory);
        ssize_t size = readlink(line, whole, PATH_MAX - 1);
        whole[size < 0 ? 0 : size] = 0;
        path = whole;
    } else
        path = resolve(directory, path, whole);
    errno = before;
    if (!path || !within(path))
        return 0;
    long number = atomic_fetch_add(&count, 1) + 1;
    int met = number == chosen || (onwards && chosen && number > chosen) ? fault : 0;
    if (met && onwards && number == chosen && kind == WRITE)
        met = SHORT; /* a disk takes what still fits */
    if (record >= 0) {
        int size = snprintf(line, sizeof line, "%ld %s %s%s\n", number, name, path + length, met ? " !" : "");
        syscall(SYS_write, record, line, size);
    }
    errno = before;
    return met;
}

#define REAL(name) ((__typeof__(&name))next(#name))

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

#define FAIL(kind, name, directory, path, value)                                                                       \
    do {                                                                                                               \
        int met = meets(kind, name, directory, path);                                                                  \
        if (met > 0) {                                                                                                 \
            errno = met;                                                                                               \
            return value;                                                                                              \
        }                                                                                                              \
    } while (0)

/* Opening, of which the older and the newer names are one. */
#define FLAGS_KIND(flags) ((flags) & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC) ? CREATE : OPEN)
#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }
#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        MODE(flags, mode)                                                                                              \
        FAIL(FLAGS_KIND(flags), #name, AT_FDCWD, path, -1);                                                            \
        return REAL(name)(path, flags, mode);                                                                          \
    }
#define OPENS_AT(name)                                                                                                 \
    int name(int directory, const char *path, int flags, ...)                                                          \
    {                                                                                                                  \
        MODE(flags, mode)                                                                                              \
        FAIL(FLAGS_KIND(flags), #name, directory, path, -1);                                                           \
        return REAL(name)(directory, path, flags, mode);                                                               \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

#define CALL(result, name, kind, directory, path, parameters, arguments)                                               \
    result name parameters                                                                                             \
    {                                                                                                                  \
        FAIL(kind, #name, directory, path, (result)-1);                                                                \
        return REAL(name) arguments;                                                                                   \
    }
CALL(int, creat, CREATE, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, creat64, CREATE, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, fsync, SYNC, file, 0, (int file), (file))
CALL(int, fdatasync, SYNC, file, 0, (int file), (file))
CALL(int, rename, RENAME, AT_FDCWD, to, (const char *from, const char *to), (from, to))
CALL(int, renameat, RENAME, there, to, (int here, const char *from, int there, const char *to), (here, from, there, to))
CALL(int, mkdir, MAKE, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, MAKE, place, path, (int place, const char *path, mode_t mode), (place, path, mode))
CALL(int, link, MAKE, AT_FDCWD, to, (const char *from, const char *to), (from, to))
CALL(int, symlink, MAKE, AT_FDCWD, to, (const char *from, const char *to), (from, to))
CALL(int, unlink, REMOVE, AT_FDCWD, path, (const char *path), (path))
CALL(int, unlinkat, REMOVE, place, path, (int place, const char *path, int flags), (place, path, flags))
CALL(int, rmdir, REMOVE, AT_FDCWD, path, (const char *path), (path))
CALL(int, truncate, RESIZE, AT_FDCWD, path, (const char *path, off_t size), (path, size))
CALL(int, truncate64, RESIZE, AT_FDCWD, path, (const char *path, off64_t size), (path, size))
CALL(int, ftruncate, RESIZE, file, 0, (int file, off_t size), (file, size))
CALL(int, ftruncate64, RESIZE, file, 0, (int file, off64_t size), (file, size))
CALL(int, chmod, CHANGE, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
CALL(int, fchmod, CHANGE, file, 0, (int file, mode_t mode), (file, mode))
CALL(int, flock, LOCK, file, 0, (int file, int operation), (file, operation))
CALL(int, stat64, LOOK, AT_FDCWD, path, (const char *path, struct stat64 *found), (path, found))
CALL(int, lstat64, LOOK, AT_FDCWD, path, (const char *path, struct stat64 *found), (path, found))

DIR *opendir(const char *path)
{
    FAIL(LIST, "opendir", AT_FDCWD, path, 0);
    return REAL(opendir)(path);
}

FILE *fopen64(const char *path, const char *mode)
{
    FAIL(strpbrk(mode, "wa+") ? CREATE : OPEN, "fopen64", AT_FDCWD, path, 0);
    return REAL(fopen64)(path, mode);
}

int close(int file)
{
    int met = meets(CLOSE, "close", file, 0), result = REAL(close)(file); /* Linux closes it in any case */
    if (met > 0)
        return errno = met, -1;
    return result;
}

/* Reading and writing, which may also do half of what is asked. */
#define MOVES(name, kind, parameters, whole, half)                                                                     \
    ssize_t name parameters                                                                                            \
    {                                                                                                                  \
        int met = meets(kind, #name, file, 0);                                                                         \
        if (met > 0)                                                                                                   \
            return errno = met, -1;                                                                                    \
        return met == SHORT && size > 1 ? REAL(name) half : REAL(name) whole;                                          \
    }
MOVES(read, READ, (int file, void *data, size_t size), (file, data, size), (file, data, size / 2))
MOVES(write, WRITE, (int file, const void *data, size_t size), (file, data, size), (file, data, size / 2))
MOVES(pread64, READ, (int file, void *data, size_t size, off64_t at), (file, data, size, at), (file, data, size / 2, at))
MOVES(pwrite64, WRITE, (int file, const void *data, size_t size, off64_t at), (file, data, size, at),
      (file, data, size / 2, at))
MOVES(readv, READ, (int file, const struct iovec *data, int size), (file, data, size), (file, data, size / 2))
MOVES(writev, WRITE, (int file, const struct iovec *data, int size), (file, data, size), (file, data, size / 2))
MOVES(sendfile64, WRITE, (int file, int from, off64_t *at, size_t size), (file, from, at, size),
      (file, from, at, size / 2))
